"""What a policy says of keys that may be found, and what a search may be, in a policy and on the wire."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from policies.budget.ledger import Spending
from policies.decision.approvals import subject_of
from policies.decision.budget_rules import run_limit_of
from policies.decision.decide import decide
from policies.decision.run_price import announced
from policies.decision.shown import in_words, signed_text
from policies.document.catalogue import catalogue_of, definition_of
from policies.document.consistency import warnings
from policies.document.describe import worded_policy
from policies.document.diff import compare
from policies.document.load import parse
from policies.document.policy import Policy
from policies.document.searchable import Keys, symbols_of
from policies.errors import PolicyError
from policies.requests.key_search import FIRST, MAX_PREFIXES, KeySearch, KeyShape
from policies.requests.query import Aggregate
from policies.requests.replaces import Replaced, Replaces
from policies.requests.request import Request, job_of
from policies.requests.tables import TableColumn
from policies.units import MICRO
from tests.cases import every
from tests.harness.example_policy import AGE, NOW, REGION, Edit, edited, plan, policy, request, table

KEYS = 'keys = { alphabet = "0-9A-F", length = 3, most = 2 }'
OPEN = (
    Edit('region = { type = "string", class = "internal", roles = ["filter"] }',
         f'region = {{ type = "string", class = "internal", roles = ["key"], {KEYS} }}'),
    Edit('computations = ["query"]', 'computations = ["query", "key-search"]'),
    Edit("max_groups     = 12", "max_groups     = 300"),
)  # fmt: skip
SHAPE = KeyShape(alphabet="0123456789ABCDEF", length=3, most=2)
RUN = bytes([7]) * 16
COUNT = (Aggregate(function="count", column=None, alias="n"),)


def search(*prefixes: str, **changes: Any) -> KeySearch:
    fields = {"run": RUN, "step": len(prefixes[0]), "column": "region", "shape": SHAPE, "prefixes": prefixes}
    return KeySearch(**{**fields, **changes})


def asked(plan: KeySearch | None = None, **changes: Any) -> Request:
    return request(table=table(columns=(REGION,)), plan=plan or search(*FIRST), **changes)


def codes(by: Policy, request: Request, spent: Spending = Spending(0)) -> list[tuple[str, str]]:  # noqa: B008
    return [(one.code, one.rule) for one in decide(by, request, bytes(32), spent, NOW)]


def test_an_alphabet_is_symbols_and_ranges() -> None:
    found = {
        "0-3": "0123",
        "A-C0-1": "01ABC",
        "ABBA": "AB",
        "a-c-": "-abc",
        "-a-c": "-abc",
        "+--": "+,-",
        ".": ".",
        "!-~": "".join(map(chr, range(33, 127))),
    }
    assert {text: symbols_of(text) for text in found} == found
    assert Keys(alphabet="0-9A-F", length=3, most=2).shape == SHAPE


def keys(text: str) -> Callable[[], object]:
    return lambda: policy(*OPEN[1:], Edit(OPEN[0].old, OPEN[0].new.replace(KEYS, text)))


@every(
    "name, load, message",
    [
        ("Z-A", keys('keys = { alphabet = "Z-A", length = 3, most = 2 }'), "the range Z-A is empty; write A-Z"),
        ("blank", keys('keys = { alphabet = "A B", length = 3, most = 2 }'), "are of ASCII, and seen"),
        ("umlaut", keys('keys = { alphabet = "A-Zä", length = 3, most = 2 }'), "are of ASCII, and seen"),
        ("long", keys('keys = { alphabet = "A-Z", length = 41, most = 2 }'), "40"),
        ("none", keys('keys = { alphabet = "A-Z", length = 4, most = 0 }'), "1"),
        ("many", keys('keys = { alphabet = "A-Z", length = 4, most = 101 }'), "100"),
        ("missing", keys('keys = { alphabet = "A-Z", length = 4 }'), "most"),
        ("unknown", keys('keys = { alphabet = "A-Z", length = 4, most = 1, least = 1 }'), "least"),
        ("no keys", keys("narrow = false"), 'the role "key" needs keys'),
        (
            "no role",
            lambda: policy(Edit('roles = ["filter"] }\nstay', f'roles = ["filter"], {KEYS} }}\nstay')),
            "need that role",
        ),
        (
            "a number",
            lambda: policy(Edit('roles = ["measure"], bounds = [0, 60]', f'roles = ["key"], {KEYS}, bounds = [0, 60]')),
            "keys are found of a string column, not of int",
        ),
        (
            "an identifier",
            lambda: policy(Edit('class = "identifier", roles = []', f'class = "identifier", roles = ["key"], {KEYS}')),
            "an identifier column may have no role",
        ),
    ],
)
def test_what_a_policy_may_not_say_of_keys(name: str, load: Callable[[], object], message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load()
    assert message in caught.value.message, name


def test_keys_that_a_policy_does_not_open_are_closed() -> None:
    assert codes(policy(*OPEN), asked()) == []
    closed = [
        ("COLUMN_ROLE", "sources.visits.columns.region.roles"),
        ("COMPUTATION_CLOSED", "purposes.health-research.computations"),
        ("MAX_GROUPS", "disclosure.max_groups"),
    ]
    for edit, expected in zip(OPEN, closed, strict=True):
        assert codes(policy(*(one for one in OPEN if one is not edit)), asked()) == [expected]
    other = search(*FIRST, shape=SHAPE.model_copy(update={"most": 1}))
    assert codes(policy(*OPEN), asked(other)) == [("DEFINITION", "sources.visits.columns.region.keys")]
    filtered = search(*FIRST, column="ward")
    ward = TableColumn(name="ward", type="string", domain=("medicine", "surgery", "unknown"), unknown="unknown")
    assert ("COLUMN_ROLE", "sources.visits.columns.ward.roles") in codes(
        policy(*OPEN), request(table=table(columns=(ward,)), plan=filtered)
    )


def test_a_column_without_a_list_is_open_to_searches_alone() -> None:
    unlisted = Edit('roles = ["key"]', 'roles = ["key", "dimension", "filter"], domain = "discover"')
    by = policy(*OPEN, unlisted)
    assert codes(by, asked()) == []
    listed = TableColumn(name="region", type="string", domain=("A", "B"), unknown="B")
    grouped = request(table=table(columns=(listed,)), plan=plan(group_by=("region",), where=None, aggregates=COUNT))
    assert codes(by, grouped)[0] == ("COLUMN_ROLE", "sources.visits.columns.region.domain")
    offered = catalogue_of(by, by.analysts["ana"], "fed", bytes(32), bytes(16)).tables[0]
    (region,) = (one for one in offered.columns if one.column.name == "region")
    assert (region.roles, region.keys, region.column.domain) == (("key",), SHAPE, ())
    assert not [one for one in warnings(by) if one.path[-1] == "domain"]
    assert definition_of(by, "visits") == definition_of(policy(*OPEN), "visits")


def test_a_search_may_be_approved_apart_and_is_warned_of_otherwise() -> None:
    def told(*when: str) -> list[str]:
        rules = "".join(
            f'[[approvals]]\nwhen = {{ {one} }}\nneed = 1\nof = ["dpo"]\nexpires_hours = 24\n' for one in when
        )
        by = parse((edited(*OPEN) + rules).encode(), "x")
        return [one.text for one in warnings(by) if one.path == ("purposes", "health-research", "computations")]

    assert len(told()) == len(told('kind = "query"')) == len(told('kind = "training"')) == 1
    assert len(told('kind = "key-search", purpose = "billing"')) == 1
    assert len(told('kind = "key-search", rho_at_least = 0.1')) == 1
    assert told('kind = "key-search"') == told('kind = "key-search", purpose = "health-research"') == []


def test_what_loosens() -> None:
    def effects(one: Policy, other: Policy) -> set[str]:
        return {change.effect for change in compare(one, other)}

    def by(text: str) -> Policy:
        return policy(*OPEN[1:], Edit(OPEN[0].old, OPEN[0].new.replace(KEYS, text)))

    usual = by(KEYS)
    shorter, fewer = KEYS.replace("length = 3", "length = 2"), KEYS.replace("most = 2", "most = 1")
    assert effects(usual, by(shorter)) == effects(usual, by(fewer)) == {"tightens"}
    assert effects(by(shorter), usual) == effects(by(fewer), usual) == {"loosens"}
    assert effects(usual, by(KEYS.replace("0-9A-F", "0-9A-G"))) == {"loosens"}
    opened = policy(*OPEN[1:], Edit('roles = ["filter"] }\nstay', f'roles = ["filter", "key"], {KEYS} }}\nstay'))
    assert effects(policy(*OPEN[1:]), opened) == {"loosens"}
    assert effects(opened, policy(*OPEN[1:])) == {"tightens"}


def test_a_policy_is_told_in_words() -> None:
    rule = '[[approvals]]\nwhen = { kind = "key-search" }\nneed = 1\nof = ["dpo"]\nexpires_hours = 24\n'
    by = parse((edited(*OPEN) + rule).encode(), "x")
    text = "\n".join(line for _, lines in worded_policy(by) for line in lines)
    assert "keys of 1 to 3 symbols among 0123456789ABCDEF; at most 2 of one person" in text
    assert "may be used as key" in text
    assert "Every search for keys needs 1 of dpo" in text


def test_people_approve_the_whole_search_in_words_and_every_round_is_part_of_it() -> None:
    by, first = policy(*OPEN), asked()
    later = asked(search("0A", "F3"), nonce=bytes([9]) * 16, created_at=first.created_at + 50)
    said = dict(in_words(by, first, 0))
    assert said["asks"] == (
        "find keys of region in visits: noised numbers of persons by prefix in 3 rounds, each of prefixes that its"
        " analyst picks"
    )
    assert f": 3 steps at rho {first.micro_rho / MICRO:.6f}" in said["price"]
    assert f"run {RUN.hex()}" in said["run"]
    assert "0123456789ABCDEF" in said["run"]
    assert subject_of(first, b"one") == subject_of(later, b"two") == job_of(first, search(*FIRST))
    assert signed_text(first) == signed_text(later)
    others = (
        asked(search(*FIRST, run=bytes(16))),
        asked(search(*FIRST, shape=SHAPE.model_copy(update={"most": 1}))),
        asked(micro_rho=first.micro_rho + 1),
        asked(purpose="billing"),
    )
    assert len({subject_of(one, b"") for one in (first, *others)}) == 5


def test_a_search_costs_what_it_announced_and_no_more() -> None:
    by, first = policy(*OPEN), asked(micro_rho=10_000)
    most = announced(search(*FIRST), first, by.privacy_unit.max_silos)
    assert most == run_limit_of(by, first) == 30_000
    for spent in (0, 10_000, 20_000):
        assert codes(by, first, Spending(spent, run=spent)) == []
    assert codes(by, first, Spending(30_000, run=30_000)) == [("RHO_PER_RUN", "sources.visits.columns.region.keys")]
    # Where a silo thinks that a person is known to fewer silos than the request says, a round costs less there.
    assert announced(search(*FIRST), first, 1) == 3 * 2_500
    whole = by.budget.lifetime_micro
    assert codes(by, first, Spending(whole - 30_000)) == []
    assert codes(by, first, Spending(whole - 29_999)) == [("BUDGET_LIFETIME", "budget.lifetime.rho")]
    assert codes(by, first, Spending(whole - 9_999)) == [("BUDGET_LIFETIME", "budget.lifetime.rho")]
    assert codes(by, asked(micro_rho=33_333)) == []
    assert codes(by, asked(micro_rho=33_334)) == [("RHO_PER_REQUEST", "budget.per_request.max_rho")]


@every("name, make, message", [
    ("step", lambda: search(*FIRST, step=3), "as many rounds"),
    ("order", lambda: search("B", "A"), "in order, each once"),
    ("twice", lambda: search("A", "A"), "in order, each once"),
    ("length", lambda: search("A", "BB"), "so many symbols"),
    ("symbol", lambda: search("A", "G"), "so many symbols"),
    ("first", lambda: search("A", step=0), "so many symbols"),
    ("none", lambda: search("A", prefixes=()), "at least 1"),
    ("many", lambda: search("A", prefixes=tuple(map(str, range(MAX_PREFIXES + 1)))), "4096"),
    ("alphabet", lambda: KeyShape(alphabet="BA", length=1, most=1), "in order, each once"),
    ("seen", lambda: KeyShape(alphabet=" A", length=1, most=1), "and seen"),
    ("a number", lambda: request(table=table(columns=(AGE,)), plan=search(*FIRST, column="age")), "no string"),
    ("no column", lambda: request(table=table(columns=(AGE,)), plan=search(*FIRST)), "not in the table definition"),
    ("slots", lambda: asked(search(*(f"{n:03X}" for n in range(4096)), shape=SHAPE.model_copy(update={
        "alphabet": "".join(map(chr, range(33, 127))), "length": 4})), backend="shares"), "shares carries 100,000"),
    ("replaces", lambda: asked(or_without=1, silos=("north", "south", "west"), replaces=Replaces(
        requests=(Replaced(nonce=bytes(16), request_hash=bytes(32)),), left_out=("zoo",), evidence=(b"1",))),
        "in no other's place"),
])  # fmt: skip
def test_what_no_request_can_ask(name: str, make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make()


def test_a_round_travels_and_its_slots_are_its_price() -> None:
    whole = asked(search(*(f"{n:03X}" for n in range(4096)), shape=SHAPE.model_copy(update={"length": 4})))
    assert Request.decode(whole.encode()) == whole
    (extent,) = whole.plan.statistics(whole.table).values()
    assert (extent.length, extent.squared) == (4096 * 17, 2)
    few = search(*FIRST, shape=KeyShape(alphabet="A", length=1, most=9))
    (extent,) = few.statistics(table(columns=(REGION,))).values()
    assert (extent.length, extent.squared) == (1, 1), "nobody counts in more slots than there are"
    assert search("A").following(("AB", "A0")).prefixes == ("A0", "AB")
