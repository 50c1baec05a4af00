"""A policy and a question in words, as whoever answers for them reads and signs them."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from policies.document import schema
from policies.document.describe import worded_policy
from policies.document.load import dotted, load
from policies.requests.predicates import Both, Compare, Either, IsNull, Not, OneOf
from policies.requests.query import Aggregate
from tests.harness.example_policy import plan, request, table
from tests.silo_node.test_accounts import POLICY

EXAMPLES = sorted((schema.FILE.parent / "examples").glob("*.toml"))
SINGLE = {"schema", "consent.mode", "consent.missing", "consent.check", "disclosure.suppress"}  # one value each
OTHERS = {
    **{"production": "trial", "private": "exact", "exclude": "zero"},
    **{"training": "query", "query": "training", "key-search": "query"},
}


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (None, "COUNT(*), AVG(age) of visits by ward"),
        (Compare(column="age", op=">=", value="65"), "COUNT(*), AVG(age) of visits where age >= 65 by ward"),
        (
            Both(operands=(IsNull(column="age"), Not(operand=OneOf(column="ward", values=("surgery", "medicine"))))),
            'COUNT(*), AVG(age) of visits where (age is missing and not ward in ("surgery", "medicine")) by ward',
        ),
        (
            Either(operands=(IsNull(column="age"), Compare(column="smoker", op="=", value="true"))),
            "COUNT(*), AVG(age) of visits where (age is missing or smoker = true) by ward",
        ),
    ],
)
def test_a_question_in_words(where: object, words: str) -> None:
    assert plan(where=where).in_words("visits") == words
    assert request().plan.in_words("visits") == "COUNT(*), AVG(age) of visits where smoker = true by ward"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("x\x1b[2K\x1b[1A\r  COUNT(*) of visits\n", r'"x\u001b[2K\u001b[1A\r  COUNT(*) of visits\n"'),
        ("zz) or (age > 200", '"zz) or (age > 200"'),
        ('a" or "b', r'"a\" or \"b"'),
        ("\u202egnirts\u2066\x9b", r'"\u202egnirts\u2066\u009b"'),
        ("\u0663", r'"\u0663"'),
        ("-1.5", "-1.5"),
        ("1\n", r'"1\n"'),
        ("", '""'),
    ],
)
def test_what_an_analyst_wrote_cannot_command_the_terminal_or_pass_for_the_question(value: str, words: str) -> None:
    for predicate, text in (
        (Compare(column="ward", op="<>", value=value), f"ward <> {words}"),
        (OneOf(column="ward", values=(value,)), f"ward in ({words})"),
    ):
        assert plan(where=predicate).in_words("visits") == f"COUNT(*), AVG(age) of visits where {text} by ward"


@pytest.mark.parametrize("hostile", ["a\x1b[2J", "a b", "a\nb", "a\n", "\u202ea", 'a"', "\u0430"])
def test_every_other_name_of_a_request_is_plain(hostile: str) -> None:
    """Analyst, purpose, table, columns and silos are names on the wire, so they are shown as they are."""
    for named in (
        lambda: request(analyst=hostile),
        lambda: request(purpose=hostile),
        lambda: request(silos=("east", "north", hostile)),
        lambda: table(name=hostile),
        lambda: plan(group_by=(hostile,)),
        lambda: Aggregate(function="avg", column=hostile, alias="a"),
        lambda: Compare(column=hostile, op="=", value="1"),
        lambda: OneOf(column=hostile, values=("1",)),
        lambda: IsNull(column=hostile),
    ):
        with pytest.raises(ValidationError, match="pattern"):
            named()


def test_a_policy_in_words_names_what_it_opens_and_what_it_costs() -> None:
    text = "\n".join(sentence for _, sentences in worded_policy(POLICY) for sentence in sentences)
    for fragment in (
        "North Hospital (hospital, NO) answers for the data of the silo north.",
        "At most 2 of their rows",
        "ana may ask for health-research and billing until 2036-01-01, with the key ed25519:",
        "visits: closed to every request: patient_id (string, identifier), diary (string, special-category).",
        "All answers together may cost rho 1 for one person",
        "health-research may spend rho 0.5 in a month, of one analyst rho 0.2.",
        "at least 3 silos",
    ):
        assert fragment in text
    for name in POLICY.sources["visits"].columns:
        assert name in text


def variants(node: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every value that is written in a policy, by its path, with the policy in which it is another one."""
    match node:
        case BaseModel():
            for name in type(node).model_fields:
                if name in node.model_fields_set:
                    key = type(node).model_fields[name].alias or name
                    for path, other in variants(getattr(node, name)):
                        yield (key, *path), node.model_copy(update={name: other})
        case dict():
            for key, value in node.items():
                for path, other in variants(value):
                    yield (key, *path), {**node, key: other}
        case tuple() if node:
            for index, value in enumerate(node):
                for path, other in variants(value):
                    yield (str(index), *path), (*node[:index], other, *node[index + 1 :])
        case tuple():
            yield (), ("dimension",)
        case _:
            yield (), another(node)


def another(value: Any) -> Any:
    """Return a value of the same type that is another one."""
    match value:
        case str():
            return OTHERS.get(value, f"{value}x")
        case bool():
            return not value
        case datetime():
            return value + timedelta(seconds=1)
        case int():
            return value + 1
        case _:
            return value * 2


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_whatever_a_policy_says_is_in_its_words(file: Path) -> None:
    """Whoever signs reads the words: a value that changes none of them would be signed unseen."""
    policy = load(file).policy
    words = worded_policy(policy)
    found = [(dotted(path), worded_policy(other) == words) for path, other in variants(policy)]
    assert len(found) > 140
    assert {path for path, is_silent in found if is_silent} <= SINGLE


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_what_is_not_built_is_not_offered(file: Path) -> None:
    text = "\n".join(sentence for _, sentences in worded_policy(load(file).policy) for sentence in sentences)
    assert text.count("HISTOGRAM") == text.count("HISTOGRAM (which opens nothing: it is COUNT by buckets)")
    for word in ("cox", "gradient-boosting"):
        assert text.count(word) == text.count(f"{word} (not built yet, so refused)")
