"""How long sending a long vector may take: by its length, the policy's [vectors] and the request, and nothing else."""

from policies.budget.ledger import Spending
from policies.requests.query import Aggregate

SPENT = Spending(0, (), 0)
COUNT = (Aggregate(function="count", column=None, alias="n"),)
