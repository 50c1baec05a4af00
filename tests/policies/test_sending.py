"""How long sending a long vector may take: by its length, the policy's [vectors] and the request, and nothing else."""

from functools import cache
from typing import Any

import pytest

from crypto.backends.scheme import CHUNK_VALUES
from crypto.rounds.manifest import MAX_SEND_S as MOST_ON_THE_WIRE
from crypto.rounds.payload import piece_sizes, scheme_of, sum_sizes
from policies.budget.ledger import Spending
from policies.decision.decide import decide
from policies.decision.sending import sending_ms
from policies.document.describe import worded_policy
from policies.document.diff import compare
from policies.document.policy import Policy, Vectors
from policies.errors import PolicyFileError
from policies.requests.computations import slot_count
from policies.requests.denials import Denial
from policies.requests.query import Aggregate
from policies.requests.request import Request
from policies.requests.sending import STATE_BYTES, answered_s, at_rate, learned_s, sent_of
from policies.requests.tables import TableColumn
from policies.requests.training import TrainingStep
from policies.units import MAX_GATHER_S, MAX_SEND_S, SEND_S
from tests.crypto.test_manifest import composed_of
from tests.harness.example_policy import NOW, Edit, column, plan, policy, request, table

SPENT = Spending(0, (), 0)
COUNT = (Aggregate(function="count", column=None, alias="n"),)
