"""`consilo-silo`: the data owner's command. Reads the silo's own files; sends nothing anywhere.

Exit status: 0 in order, 1 an error.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from crypto.errors import CryptoError
from policies.accountant import epsilon_of
from policies.errors import LedgerError, PolicyError, PolicyFileError
from policies.load import load
from policies.model import MICRO
from silo_node.consent import load_consent
from silo_node.errors import SiloError
from silo_node.home import LEDGER
from silo_node.ledger_store import LedgerStore
from silo_node.sources import load_sources


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SiloError(message, f"see `{self.prog} --help`")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; every expected error becomes one line and one hint."""
    try:
        options = _parser().parse_args(arguments)
        run: Callable[[argparse.Namespace], int] = options.run
        return run(options)
    except PolicyFileError as err:
        for line in err.message.splitlines():
            print(line, file=sys.stderr)
        count = len(err.message.splitlines())
        return _fail(f"{count} problem{'s' if count > 1 else ''} in the policy", err.hint)
    except (SiloError, PolicyError, CryptoError) as err:
        return _fail(err.message, err.hint)
    except KeyboardInterrupt:
        return _fail("interrupted", "nothing was changed")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as err:
        if os.environ.get("CONSILO_DEBUG"):
            raise
        return _fail(
            f"unexpected {type(err).__name__}", "this is a defect: set CONSILO_DEBUG=1 to see where, and report it"
        )


def _fail(message: str, hint: str) -> int:
    print(f"consilo-silo: error: {' '.join(message.split())}", file=sys.stderr)
    print(f"consilo-silo: hint: {' '.join(hint.split()) or 'see `consilo-silo --help`'}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="consilo-silo", description="Look after one silo: its policy, its data, its ledger.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    text = "check a policy file, and the data files that it names"
    check = commands.add_parser("check-policy", help=text, description=text.capitalize() + ".")
    check.add_argument("file", type=Path, metavar="FILE", help="the policy.toml")
    check.set_defaults(run=_check_policy)
    text = "show what the silo has spent, and what is left"
    ledger = commands.add_parser("ledger", help=text, description=text.capitalize() + ".")
    ledger.add_argument("--policy", type=Path, required=True, metavar="FILE", help="the policy.toml beside the ledger")
    ledger.set_defaults(run=_ledger)
    return parser


def _check_policy(options: argparse.Namespace) -> int:
    file = load(options.file)
    policy = file.policy
    sources = load_sources(policy, options.file.resolve().parent)
    load_consent(policy, options.file.resolve().parent)
    delta = float(policy.budget.delta)
    least, most = policy.budget.request_micro
    print(f"{options.file}: in order (sha256 {file.digest.hex()})")
    print(f"  silo      {policy.silo.id}, {policy.silo.controller}, mode {policy.mode}")
    for name, source in sources.items():
        opened = ", ".join(
            f"{key} ({'/'.join(column.roles)})" for key, column in source.columns.items() if column.roles
        )
        print(f"  source    {name}: {opened or 'nothing is open'}")
    for name, purpose in policy.purposes.items():
        print(
            f"  purpose   {name}: {purpose.legal_basis}" + (f", {purpose.consent}" if purpose.consent != "none" else "")
        )
    for name, analyst in policy.analysts.items():
        print(f"  analyst   {name}: {', '.join(analyst.purposes) or 'no purpose'}, until {analyst.until:%Y-%m-%d}")
    if not policy.analysts:
        print("  analyst   none: nobody may ask")
    aggregates, backends = policy.disclosure.aggregates, policy.protection.accept
    print(f"  answers   {', '.join(aggregates) or 'none'}, by {', '.join(backends) or 'none'}")
    lifetime = policy.budget.lifetime_micro / MICRO
    print(
        f"  budget    rho {least / MICRO:g} to {most / MICRO:g} a request, {lifetime:g} a lifetime"
        f" (epsilon {epsilon_of(lifetime, delta):.2f} at delta {delta:g})"
    )
    return 0


def _ledger(options: argparse.Namespace) -> int:
    policy = load(options.policy).policy
    path = options.policy.resolve().parent / LEDGER
    if not path.exists():
        raise LedgerError(f"there is no ledger beside {options.policy}", "it appears when the silo first starts")
    store = LedgerStore(path)
    charges, spent = store.charges(), store.spending().lifetime
    store.close()
    table = Table(title=f"Ledger of {policy.silo.id}", title_justify="left")
    for heading, justify in (
        ("when", "left"),
        ("analyst", "left"),
        ("purpose", "left"),
        ("state", "left"),
        ("rho", "right"),
    ):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for when, analyst, purpose, micro_rho, state in charges:
        table.add_row(when, analyst, purpose, state, f"{micro_rho / MICRO:.6f}")
    Console(highlight=False).print(table)
    delta, limit = float(policy.budget.delta), policy.budget.lifetime_micro
    both = f"rho {spent / MICRO:.6f} of {limit / MICRO:g}; epsilon {_epsilon(spent, delta)} of {_epsilon(limit, delta)}"
    print(f"spent: {both} at delta {delta:g}")
    print(f"left:  rho {(limit - spent) / MICRO:.6f}")
    return 0


def _epsilon(micro_rho: int, delta: float) -> str:
    return f"{epsilon_of(micro_rho / MICRO, delta):.2f}" if micro_rho else "0"


if __name__ == "__main__":
    sys.exit(main())
