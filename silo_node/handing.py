"""The steps by which states of runs pass from silo to silo: `silo_node.rounds.handover` as the actor takes them.

One state that is handed over, and one that arrives, is held in memory at a time, however many silos take it over and
however many steps come at once; a step that does not go on with it lets it go.
"""

import threading
from collections.abc import Callable

from crypto.errors import ProtocolError
from crypto.rounds.handover import frames_of
from crypto.wire import ROUND_ID_BYTES
from silo_node.ledger.store import LedgerStore
from silo_node.rounds import handover
from silo_node.rounds.handover import Held, Taking
from silo_node.rounds.learning import signed_position
from silo_node.rounds.proposal import load_run
from silo_node.rounds.states import Silo

LEARN_S = 20.0  # of the 30 s of a step
Frames = tuple[bytes, ...]


class Handing:
    """What `silo_node.actor.SiloActor` does for a silo that missed reports, and where it is that silo."""

    _silo: Silo
    _ledger: LedgerStore
    _handing: threading.Lock  # one state is read, to be handed over, at a time
    _learning: threading.Lock  # one report is learned, or one state taken over, at a time
    _guard: Callable[[bytes, Callable[[], Frames]], Frames]
    _now: Callable[[], int]
    _held: tuple[bytes, Held] | None = None  # with what names it
    _taking: Taking | None = None

    def hand_over(self, data: bytes, index: bytes = b"") -> Frames:
        """Say what state of a run this silo holds, and in how many frames it goes; with an index return that frame.

        Both are sealed to the silo that a signed HandoverAsked names. Failed where this silo holds no such state.
        """
        return self._guard(bytes(ROUND_ID_BYTES), lambda: self._hand_over(data, index))

    def take_over(self, data: bytes, index: bytes, frame: bytes, *statements: bytes) -> Frames:
        """Take a frame of a state that other silos hold; with the first one come their sealed statements.

        Answer with a signed ModelUpdated, which names the new report once the last frame is here and the state is kept,
        and with the model that is sealed to the analyst then, if the run is over; or with Failed.
        """
        return self._guard(bytes(ROUND_ID_BYTES), lambda: self._take_over(data, index, frame, statements))

    def _hand_over(self, data: bytes, index: bytes) -> Frames:
        of, place = handover.state_asked(self._silo, data), int.from_bytes(index[:8], "big")
        if not self._handing.acquire(timeout=LEARN_S):
            raise ProtocolError(f"this silo hands other states over, for {LEARN_S:g} s already")
        try:
            kept, self._held = self._held, None
            if kept is None or kept[0] != of:
                kept = None  # before another one is read
                kept = of, handover.held(self._silo, self._ledger, data)
            elif not index:
                self._held = kept  # for whoever has begun to take it over
            if not index:
                return handover.statement(self._silo, data, kept[1])
            frame = handover.handed(self._silo, data, kept[1], place)
            if place + 1 < frames_of(kept[1].state.size):
                self._held = kept
            return (frame,)
        finally:
            self._handing.release()

    def _take_over(self, data: bytes, index: bytes, frame: bytes, statements: Frames) -> Frames:
        if not self._learning.acquire(timeout=LEARN_S):
            raise ProtocolError(f"this silo learns from other reports, for {LEARN_S:g} s already")
        try:
            taking, self._taking = self._taking, None
            place = int.from_bytes(index[:8], "big")
            if place == 0:
                taking = handover.agreed(self._silo, self._ledger, data, statements)
            if taking is None:
                raise ProtocolError("a frame of a state that nobody has agreed on; the first one comes with statements")
            taking = handover.with_frame(self._silo, taking, data, place, frame)
            if len(taking.frames) == frames_of(taking.state.size):
                return handover.taken(self._silo, self._ledger, self._now(), taking)
            self._taking, run = taking, taking.state.run
            return (signed_position(self._silo, self._ledger, run, load_run(self._silo, self._ledger, run)),)
        finally:
            self._learning.release()
