"""Stop a training run at a silo, and give back what its unbegun steps have reserved: docs/protocol.md section 11.

Promise: what was reserved is given back only after a quorum of the run's silos has signed that they take no further
step of it, in the transaction that lets this silo take none either. So no resumed run is charged what was given back.
"""

from crypto.errors import CryptoError, ProtocolError, SignatureError
from crypto.keys import VerifyKey
from crypto.rounds.committees import quorum_of
from crypto.rounds.messages import RunEnd, Stopped
from crypto.wire import signer_of, verify, verify_detached
from policies.budget.ledger import Ledger, RunReservation
from silo_node.rounds.learning import signed_position
from silo_node.rounds.proposal import load_run
from silo_node.rounds.states import Silo


def stop(silo: Silo, ledger: Ledger, data: bytes) -> bytes:
    """Take no further step of a run that its analyst stops; return the signed ModelUpdated that says so.

    With the signatures of a quorum what the run has reserved is given back too. Both are durable before this returns.
    A run that has reserved nothing here is left as it is. Raises CryptoError on a message that does not hold.
    """
    name = signer_of(data, Stopped)
    analyst = silo.policy.analyst(name)
    if analyst is None:
        raise ProtocolError("somebody who is not an analyst here stops a run")
    message = verify(data, Stopped, {name: VerifyKey.parse(analyst.key)}).message
    if message.federation != silo.federation:
        raise ProtocolError(f"a run of the federation {message.federation!r}, this is {silo.federation!r}")
    held = ledger.reservation_of(message.run)
    if held is not None:
        if held.analyst != (silo.policy.analyst_entry(name) or name):
            raise ProtocolError("this training run is another analyst's")
        said = agreed_end(silo, held, message)
        ledger.stop_run(message.run, said or "abandoned", releases=said is not None)
    return signed_position(silo, ledger, message.run, load_run(silo, ledger, message.run))


def agreed_end(silo: Silo, held: RunReservation, message: Stopped) -> RunEnd | None:
    """Return why a run is over if a quorum of its silos signed it alike; None if the analyst alone stops it.

    Raises ProtocolError if there are too few signatures, or if one does not hold.
    """
    learned = message.learned
    if learned is None and not message.signatures:
        return None
    if learned is None or learned.ended is None or (learned.federation, learned.run) != (silo.federation, message.run):
        raise ProtocolError("what the silos signed does not say that this run is over")
    keys = {one: silo.silos[one] for one in held.silos if one in silo.silos}
    body, signers = learned.encode(), set[str]()
    for signature in message.signatures:
        try:
            verify_detached(signature, body, type(learned), keys)
        except (SignatureError, CryptoError) as err:
            raise ProtocolError(f"a signature under the end of the run does not hold: {err.message}") from err
        signers.add(signature.signer)
    if len(signers) < (least := quorum_of(len(held.silos))):
        raise ProtocolError(f"{len(signers)} silos signed the end of the run, {least} of {len(held.silos)} must")
    return learned.ended
