"""The process that computes networks: `python -m silo_node.training.confined.child MEMORY CPU`, started by `apart`.

It loads torch, computes a little of everything once, and then confines itself (`crypto.backends.confined`): it keeps
its two pipes and opens, connects and starts nothing any more. Then it computes a little again, so that a process that
could not compute like this never gets a row. It ends with whoever started it, and has no key, no ledger and no policy.
"""

import json
import os
import resource
import sys
from contextlib import suppress

from crypto.backends.confined import confine, end_with_parent
from crypto.backends.sandbox import Parts, serve

SETUP, COMPUTE, CONFINED = range(3)
NO_MEMORY = "OutOfMemory"  # how a refusal begins whose cause is the limit of memory
_NO_ROOM = ("memory", "bad_alloc")  # with which torch says that it has none, of the CPU and of a device


class OutOfMemory(Exception):  # noqa: N818  its name is what the other end reads
    """The computation needed more memory than the process may have."""


def load() -> None:
    """Import all that a computation may reach: also what others import only where a silo really trains."""
    from silo_node.training.confined import computing, trying  # noqa: F401
    from silo_node.training.networks import round as trained  # noqa: F401

    with suppress(ImportError):  # without it no packed file is read, which says so
        import safetensors.numpy  # noqa: F401


class Child:
    """A process that has loaded what it needs, and is confined."""

    def __init__(self, setup: bytes) -> None:
        """Load, try, confine, and try once more; raises any exception if it cannot compute like this."""
        said = json.loads(setup)
        self._said = said["device"], said["threads"]
        load()
        from silo_node.training.confined import computing, trying, work
        from silo_node.training.networks import device

        self._computing, self._work, self._device = computing, work, device
        with device.on(*self._said) as found:
            trying.tried()
            self.why_unconfined = confine(has_device=found.type == "cuda")
            trying.tried()

    def compute(self, payload: bytes) -> Parts:
        """Return what comes of a work; raises OutOfMemory, or any exception."""
        try:
            with self._device.on(*self._said):
                work = self._work.read(payload)
                return self._work.sent(work, self._computing.computed(work))
        except MemoryError as err:
            raise OutOfMemory from err
        except RuntimeError as err:
            if any(said in str(err) for said in _NO_ROOM):
                raise OutOfMemory from err
            raise


def main() -> None:
    """Answer jobs until the pipe closes."""
    memory_bytes = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    end_with_parent(os.getppid())
    child: Child | None = None

    def handle(code: int, payload: bytes) -> bytes | Parts:
        nonlocal child
        if code == SETUP:
            child = Child(payload)
            return b""
        if child is None:
            raise RuntimeError("the process was not set up")
        return child.compute(payload) if code == COMPUTE else bytes([not child.why_unconfined])

    serve(handle)


if __name__ == "__main__":
    main()
