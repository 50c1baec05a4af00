"""Plan one question, or several, for another program: `python -m analyst.sql "SELECT ..."`.

A data owner's `consilo-silo check-policy --request` starts it, so that the analyst's side plans the SQL there as well.
It reads a line with an encoded Catalogue from standard input, and the text of each of its long domains, in their order.
It prints one JSON line: {"table", "plan"} or {"error", "hint"}.
"""

import json
import sys
from itertools import islice

from analyst.errors import AnalystError
from analyst.sql.offer import Offer
from analyst.sql.script import script
from crypto.errors import CryptoError
from policies.domains import with_text
from policies.requests.catalogue import Catalogue


def main() -> int:
    """Plan the question of the command line; return 0, or 1 if that is not possible."""
    try:
        catalogue = Catalogue.decode(sys.stdin.buffer.readline(Catalogue.MAX_BYTES + 1).removesuffix(b"\n"))
        domains = {
            digest: with_text(domain, b"".join(islice(sys.stdin.buffer, domain.size)))
            for digest, domain in catalogue.domains.items()
        }
        offer = Offer({"silo": catalogue}, lambda domain: domains[domain.digest])
        planned = script(sys.argv[1] if len(sys.argv) > 1 else "", offer, counts_cut=True)
    except (AnalystError, CryptoError) as err:
        print(json.dumps({"error": err.message, "hint": err.hint}))  # noqa: T201
        return 1
    answer = {"table": planned.table.model_dump(mode="json"), "plan": planned.plan.model_dump(mode="json")}
    print(json.dumps(answer))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
