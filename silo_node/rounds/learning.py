"""Open the report of a training step at a silo that is its recipient, and move the model."""

from collections.abc import Sequence

from crypto.errors import ProtocolError
from crypto.keys import VerifyKey
from crypto.rounds.manifest import Propose
from crypto.rounds.messages import Learned
from crypto.rounds.opening import check_report, open_report
from crypto.rounds.recount import check_chunk
from crypto.rounds.report import StoredReport
from crypto.wire import sign, signer_of, verify
from policies.budget.ledger import Ledger
from policies.requests.request import Request
from policies.requests.round_key import round_secret
from policies.requests.terms import terms_of
from silo_node.rounds.proposal import load_run
from silo_node.rounds.states import Silo
from silo_node.training.models import MODELS
from silo_node.training.run import check_position, position_of


def learn(silo: Silo, ledger: Ledger, now: int, data: bytes, evidence: Sequence[bytes]) -> bytes:
    """Open the report of a training step, move the model by it, and return the signed Learned.

    `evidence` holds the contributions of the survivors, chunk by chunk: the sum is added once more before it is used.

    The new state is durable before this returns. A report that is not the next one of its run is left alone; what is
    returned then says how far this silo is.
    """
    stored = StoredReport.decode(data)
    proposed = verify(stored.message.propose, Propose, silo.aggregators).message
    name = signer_of(proposed.request, Request)
    analyst = silo.policy.analyst(name)
    if analyst is None:
        raise ProtocolError("the report belongs to a request of somebody who is not an analyst here")
    signed = verify(proposed.request, Request, {name: VerifyKey.parse(analyst.key)})
    request, step = signed.message, signed.message.plan.training
    if request.analyst != name or request.federation != silo.federation or step is None:
        raise ProtocolError("the report is not that of a training step of this federation")
    state = load_run(ledger, step.run)
    if state is None or state.position != stored.name:
        try:
            check_position(state, request)
        except ProtocolError:
            return sign(Learned(run=step.run, position=position_of(state)), silo.name, silo.signing)
        terms = terms_of(request, signed.digest)
        checked = check_report(stored, terms, silo.silos, silo.aggregators, request.round_key)
        members = len(checked.survivors)
        for index in range(checked.scheme.shape.chunks if checked.scheme.columns == 1 else 0):
            check_chunk(checked, index, evidence[index * members : (index + 1) * members])
        opened = open_report(checked, silo.name, silo.sealing, round_secret(request, silo.name, silo.sealing))
        state = MODELS[request.plan.kind](state, request, stored.name, opened.blocks(), now)
        ledger.save_run(step.run, state.encode())
    return sign(Learned(run=step.run, position=state.position), silo.name, silo.signing)
