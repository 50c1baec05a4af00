"""Plan one question for another program: `python -m analyst.sql "SELECT ..."`.

A data owner's `consilo-silo check-policy --request` starts it to see how a question is judged, so that SQL is planned
by the analyst's side there as well. Reads an encoded Catalogue from standard input, and prints one JSON line:
{"table", "plan"} or {"error", "hint"}.
"""

import json
import sys

from analyst.errors import AnalystError
from analyst.sql.offer import Offer
from analyst.sql.plan import plan
from crypto.errors import CryptoError
from policies.requests.catalogue import Catalogue


def main() -> int:
    """Plan the question of the command line; return 0, or 1 if it cannot be asked."""
    try:
        catalogue = Catalogue.decode(sys.stdin.buffer.read(Catalogue.MAX_BYTES + 1))
        planned = plan(sys.argv[1] if len(sys.argv) > 1 else "", Offer({"silo": catalogue}))
    except (AnalystError, CryptoError) as err:
        print(json.dumps({"error": err.message, "hint": err.hint}))  # noqa: T201
        return 1
    answer = {"table": planned.table.model_dump(mode="json"), "plan": planned.plan.model_dump(mode="json")}
    print(json.dumps(answer))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
