"""A policy file loads whole, or every problem in it is named with file, line, path and what was meant."""

import string
import time
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from policies.budget.ledger import Spending
from policies.decision.decide import decide
from policies.document.catalogue import open_tables
from policies.document.load import load, parse
from policies.errors import PolicyFileError
from tests.cases import every
from tests.harness.example_policy import KEY, NOW, POLICY, Edit, edited, policy, request

MINIMAL = """\
schema = "silo-policy/1"
[silo]
id = "north"
controller = "North Hospital"
sector = "hospital"
jurisdiction = "NO"
contact = "privacy@north.example"
[privacy_unit]
entity = "patient"
id_column = "patient_id"
max_rows = 1
[sources.visits]
kind = "csv"
uri = "visits.csv"
[sources.visits.columns]
patient_id = { type = "string", class = "identifier", roles = [] }
[purposes.health-research]
legal_basis = "public-task"
computations = ["query"]
[budget]
delta = 1e-6
lifetime = { rho = 1 }
"""


class Bad(NamedTuple):
    """A change, where the problem must be found (the line that holds `at`), and what is said of it."""

    title: str
    edit: Edit
    at: str
    path: str
    problem: str


AGE = 'roles = ["measure", "filter"], bounds = [0, 110], unit = "year"'
COST = "bounds = [-50, 5000], step = 0.01"
WARD = 'domain = ["medicine", "surgery", "unknown"], unknown = "unknown"'
VISITS = "sources.visits.columns"

BAD = [
    Bad(
        "unknown key",
        Edit("min_silos  ", "min_silo  "),
        "min_silo ",
        "disclosure.min_silo",
        "unknown key (found 'min_silo'; did you mean 'min_silos')",
    ),
    Bad(
        "unknown key without a near one",
        Edit("min_cohort  ", "zzz  "),
        "zzz ",
        "disclosure.zzz",
        "unknown key (found 'zzz'; expected one of: min_cohort, min_silos,",
    ),
    Bad(
        "unknown key in an inline table",
        Edit("max_rho = 0.1", "max_rho = 0.1, max_rhoo = 1"),
        "max_rhoo",
        "budget.per_request.max_rhoo",
        "(found 'max_rhoo'; did you mean 'max_rho')",
    ),
    Bad(
        "unknown key of a column",
        Edit(AGE, AGE.replace("unit", "units")),
        "units",
        f"{VISITS}.age.units",
        "(found 'units'; did you mean 'unit')",
    ),
    Bad(
        "unknown section",
        Edit("[disclosure]", "[disclosures]"),
        "[disclosures]",
        "disclosures",
        "(found 'disclosures'; did you mean 'disclosure')",
    ),
    Bad(
        "missing key",
        Edit('contact      = "privacy@north.example"\n', ""),
        "[silo]",
        "silo.contact",
        "missing; it is mandatory",
    ),
    Bad(
        "missing key of a column",
        Edit('class = "internal", roles = ["filter"]', 'roles = ["filter"]'),
        "region ",
        f"{VISITS}.region.class",
        "missing; it is mandatory",
    ),
    Bad(
        "wrong type",
        Edit("max_rows  = 2", 'max_rows  = "2"'),
        "max_rows ",
        "privacy_unit.max_rows",
        "should be a valid integer (found '2')",
    ),
    Bad(
        "float for an integer",
        Edit("max_rows  = 2", "max_rows  = 2.5"),
        "max_rows ",
        "privacy_unit.max_rows",
        "(found 2.5)",
    ),
    Bad(
        "bool for an integer",
        Edit("max_rows  = 2", "max_rows  = true"),
        "max_rows ",
        "privacy_unit.max_rows",
        "(found True)",
    ),
    Bad(
        "not one of the choices",
        Edit('"hospital"', '"hospice"'),
        "sector",
        "silo.sector",
        "not one of the choices (found 'hospice'; did you mean 'hospital')",
    ),
    Bad(
        "other schema",
        Edit("silo-policy/1", "silo-policy/2"),
        "schema",
        "schema",
        "(found 'silo-policy/2'; did you mean 'silo-policy/1')",
    ),
    Bad(
        "a norm that bounds nothing",
        Edit("max_rows  = 2", "max_rows  = 2\nmax_norm  = 2"),
        "[privacy_unit]",
        "privacy_unit",
        "max_norm 2 bounds nothing, as 2 rows have no larger norm; leave it out",
    ),
    Bad(
        "half a norm",
        Edit("max_rows  = 2", "max_rows  = 2\nmax_norm  = 1.5"),
        "max_norm ",
        "privacy_unit.max_norm",
        "(found 1.5)",
    ),
    Bad(
        "no norm",
        Edit("max_rows  = 2", "max_rows  = 2\nmax_norm  = 0"),
        "max_norm ",
        "privacy_unit.max_norm",
        "(found 0)",
    ),
    Bad("no person", Edit("max_rows  = 2", "max_rows  = 0"), "max_rows ", "privacy_unit.max_rows", "(found 0)"),
    Bad(
        "bounds reversed",
        Edit("[0, 110]", "[110, 0]"),
        "age ",
        f"{VISITS}.age",
        "bounds [110, 0]: low must be below high",
    ),
    Bad("bounds equal", Edit("[0, 110]", "[7, 7]"), "age ", f"{VISITS}.age", "low must be below high"),
    Bad(
        "bounds off the grid",
        Edit(COST, "bounds = [0, 50.005], step = 0.01"),
        "cost ",
        f"{VISITS}.cost",
        "bounds [0, 50.005] must be multiples of step 0.01",
    ),
    Bad(
        "too many steps",
        Edit(COST, "bounds = [0, 50000000], step = 0.01"),
        "cost ",
        f"{VISITS}.cost",
        "span more than 4294967296 steps of 0.01",
    ),
    Bad(
        "step beyond nine decimals",
        Edit(COST, "bounds = [0, 1], step = 0.0000000005"),
        "cost ",
        f"{VISITS}.cost",
        "with at most 9 decimals",
    ),
    Bad("bounds beyond 1e18", Edit("[0, 110]", f"[{10**18}, {10**18 + 1}]"), "age ", f"{VISITS}.age", "beyond 1e18"),
    Bad(
        "bounds of a bool",
        Edit('type = "bool", class = "sensitive"', 'type = "bool", bounds = [0, 1], class = "sensitive"'),
        "smoker ",
        f"{VISITS}.smoker",
        "a bool column has no bounds",
    ),
    Bad(
        "step of a bool",
        Edit('type = "bool", class = "sensitive"', 'type = "bool", step = 30, class = "sensitive"'),
        "smoker ",
        f"{VISITS}.smoker",
        "a bool column has no step",
    ),
    Bad(
        "bounds reversed of a filter",
        Edit('roles = ["measure", "filter"], bounds = [0, 110]', 'roles = ["filter"], bounds = [110, 0]'),
        "age ",
        f"{VISITS}.age",
        "low must be below high",
    ),
    Bad(
        "domain of decimals",
        Edit(COST, f"{COST}, domain = [1, 2], unknown = 1"),
        "cost ",
        f"{VISITS}.cost",
        "a decimal column has no domain",
    ),
    Bad(
        "domain of a filter without unknown",
        Edit('"internal", roles = ["filter"]', '"internal", roles = ["filter"], domain = ["a", "b"]'),
        "region ",
        f"{VISITS}.region",
        "unknown = None must be a member of domain",
    ),
    Bad(
        "large domain",
        Edit("[-1, 0, 1, 2]", str(list(range(-1, 1000)))),
        "grade ",
        f"{VISITS}.grade",
        "more than 1000",
    ),
    Bad("no contact", Edit('"privacy@north.example"', '""'), "contact ", "silo.contact", "at least 1 character"),
    Bad("step of 0", Edit("step = 0.01", "step = 0"), "cost ", f"{VISITS}.cost.step", "greater than 0 (found 0)"),
    Bad(
        "three bounds",
        Edit("[0, 110]", "[0, 1, 110]"),
        "age ",
        f"{VISITS}.age.bounds",
        "at most 2 items",
    ),
    Bad("measure without bounds", Edit("bounds = [0, 110], ", ""), "age ", f"{VISITS}.age", "a measure needs bounds"),
    Bad("decimal without step", Edit(", step = 0.01", ""), "cost ", f"{VISITS}.cost", "a decimal measure needs step"),
    Bad(
        "identifier with a role",
        Edit('class = "special-category", roles = []', 'class = "identifier", roles = ["filter"]'),
        "diary ",
        f"{VISITS}.diary",
        "an identifier column may have no role; set roles = []",
    ),
    Bad(
        "measure of text",
        Edit('"internal", roles = ["filter"]', '"internal", roles = ["measure"]'),
        "region ",
        f"{VISITS}.region",
        "a string column cannot be a measure",
    ),
    Bad(
        "dimension without domain",
        Edit('"internal", roles = ["filter"]', '"internal", roles = ["dimension"]'),
        "region ",
        f"{VISITS}.region",
        'a dimension needs domain = ["...", ...]',
    ),
    Bad(
        "dimension of decimals",
        Edit('"confidential", roles = ["measure", "filter"]', '"confidential", roles = ["dimension"]'),
        "cost ",
        f"{VISITS}.cost",
        "a decimal column cannot be a dimension",
    ),
    Bad(
        "unknown not in domain",
        Edit(WARD, WARD.replace('unknown = "unknown"', 'unknown = "other"')),
        "ward ",
        f"{VISITS}.ward",
        "unknown = 'other' must be a member of domain",
    ),
    Bad(
        "no unknown",
        Edit(WARD, WARD.replace(', unknown = "unknown"', "")),
        "ward ",
        f"{VISITS}.ward",
        "unknown = None must be a member of domain",
    ),
    Bad(
        "domain of another type",
        Edit("[-1, 0, 1, 2]", '["-1", "0"]'),
        "grade ",
        f"{VISITS}.grade",
        "domain must hold int values",
    ),
    Bad(
        "domain with a value twice",
        Edit("[-1, 0, 1, 2]", "[-1, 0, 0]"),
        "grade ",
        f"{VISITS}.grade",
        "domain names a value twice",
    ),
    Bad(
        "empty domain value",
        Edit('"surgery"', '""'),
        "ward ",
        f"{VISITS}.ward",
        "empty or longer than 80 characters",
    ),
    Bad(
        "id_column missing",
        Edit("patient_id = {", "person = {"),
        "[sources.visits.columns]",
        VISITS,
        "there is no 'patient_id', the privacy_unit.id_column",
    ),
    Bad(
        "id_column open",
        Edit('class = "identifier", roles = []', 'class = "internal", roles = ["filter"]'),
        "patient_id = {",
        f"{VISITS}.patient_id.roles",
        "the id_column may have no role; set roles = []",
    ),
    Bad(
        "purpose of an analyst unknown",
        Edit('["health-research", "billing"]', '["health-reserch"]'),
        'purposes = ["health-reserch"]',
        "analysts.ana.purposes",
        "not in purposes (found 'health-reserch'; did you mean 'health-research')",
    ),
    Bad(
        "bad key",
        Edit(KEY, "ed25519:beef"),
        "key ",
        "analysts.ana.key",
        "'ed25519:beef' is not a verification key; expected ed25519:<64 hexadecimal digits>",
    ),
    Bad(
        "until without time zone",
        Edit("until    = 2036-01-01T00:00:00Z", "until    = 2036-01-01T00:00:00"),
        "until    =",
        "analysts.ana.until",
        "until needs a time zone",
    ),
    Bad(
        "valid_until without time zone",
        Edit("valid_until = 2036-01-01T00:00:00Z", "valid_until = 2036-01-01T00:00:00"),
        "[policy]",
        "policy",
        "need a time zone",
    ),
    Bad(
        "validity reversed",
        Edit("valid_until = 2036", "valid_until = 2025"),
        "[policy]",
        "policy",
        "valid_from must be before valid_until",
    ),
    Bad("delta above 1e-5", Edit("1e-6", "1.1e-5"), "delta ", "budget.delta", "(found 0.000011)"),
    Bad("delta of 0", Edit("1e-6", "0.0"), "delta ", "budget.delta", "greater than or equal to 1E-12"),
    Bad("rho of 0", Edit("rho = 1.0", "rho = 0"), "lifetime ", "budget.lifetime.rho", "(found 0)"),
    Bad(
        "rho below what is counted", Edit("rho = 1.0", "rho = 0.0000009"), "lifetime ", "budget.lifetime.rho", "(found"
    ),
    Bad("rho above 100", Edit("rho = 1.0", "rho = 101"), "lifetime ", "budget.lifetime.rho", "(found 101)"),
    Bad(
        "min_rho above max_rho",
        Edit("min_rho = 0.001", "min_rho = 0.2"),
        "per_request ",
        "budget.per_request",
        "min_rho 0.2 is above max_rho 0.1",
    ),
    Bad("two silos", Edit("min_silos      = 3", "min_silos = 2"), "min_silos ", "disclosure.min_silos", "(found 2)"),
    Bad(
        "unknown backend",
        Edit('["masking"]', '["plain"]'),
        "accept ",
        "protection.accept.0",
        "(found 'plain'; expected one of: masking, shares,",
    ),
    Bad(
        "no collusion",
        Edit("max_colluding = 1", "max_colluding = 0"),
        "max_colluding ",
        "protection.max_colluding",
        "(found 0)",
    ),
    Bad(
        "itself must be in",
        Edit("max_colluding = 1", 'max_colluding = 1\nmust_include = ["north"]'),
        "must_include",
        "protection.must_include",
        "is this silo, which is always in",
    ),
    Bad(
        "a silo twice",
        Edit("max_colluding = 1", 'max_colluding = 1\nmust_include = ["east", "east"]'),
        "must_include",
        "protection.must_include",
        "names a silo twice",
    ),
    Bad(
        "bad name", Edit("[sources.visits]", '[sources."no name"]'), '[sources."no name"]', "sources.no name", "pattern"
    ),
    Bad(
        "unknown release",
        Edit('kind = "parquet"', 'kind = "parquet"\nrelease = "open"'),
        "release = ",
        "sources.visits.release",
        "(found 'open'; expected one of: private, exact)",
    ),
]


def problems_of(text: str | bytes) -> list[str]:
    """Return the lines of the error that `text` raises."""
    with pytest.raises(PolicyFileError) as caught:
        parse(text.encode() if isinstance(text, str) else text, "policy.toml")
    assert caught.value.message
    return caught.value.message.split("\n")


def line_of(text: str, fragment: str) -> int:
    """Return the first line that holds the fragment."""
    return next(number for number, line in enumerate(text.split("\n"), 1) if fragment in line)


def test_good_policy_is_read_as_written(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(POLICY)
    loaded = load(file)
    assert loaded.digest == sha256(POLICY.encode()).digest()
    assert loaded.path == file
    assert loaded.policy.silo.id == "north"
    assert loaded.policy.policy is not None
    assert loaded.policy.policy.valid_until == datetime(2036, 1, 1, tzinfo=UTC)
    assert loaded.policy.budget.delta == Decimal("1e-6")
    assert loaded.policy.budget.lifetime_micro == 1_000_000
    assert loaded.policy.budget.request_micro == (1_000, 100_000)
    cost = loaded.policy.sources["visits"].columns["cost"]
    assert cost.step == Decimal("0.01")  # exact, not the nearest binary fraction
    assert cost.range_steps == (-5_000, 500_000)
    assert loaded.policy.sources["visits"].columns["smoker"].range_steps == (0, 1)


def test_limits_are_rounded_down_never_up() -> None:
    read = policy(Edit("rho = 1.0", "rho = 0.1234567"), Edit("max_rho = 0.1 ", "max_rho = 0.0123459 "))
    assert read.budget.lifetime_micro == 123_456
    assert read.budget.request_micro[1] == 12_345


def test_policy_values_are_frozen() -> None:
    read = policy()
    with pytest.raises(ValueError, match="frozen"):
        read.disclosure.min_silos = 1  # type: ignore[misc]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.title)
def test_bad_policy_names_line_path_and_problem(bad: Bad) -> None:
    text = edited(bad.edit)
    start = f"policy.toml:{line_of(text, bad.at)}: {bad.path}"
    found = problems_of(text)
    assert any(line.startswith(start) and bad.problem in line for line in found), found


@every("bad", BAD)
def test_every_line_of_an_error_has_the_form_file_line_path_problem(bad: Bad) -> None:
    for line in problems_of(edited(bad.edit)):
        file, number, path, problem = line.split(":", 3)
        assert file == "policy.toml"
        assert int(number) >= 1
        assert path.strip()
        assert problem.strip()


@pytest.mark.parametrize("section", ["silo", "privacy_unit", "budget", "purposes", "sources", "schema"])
def test_mandatory_sections_are_missed(section: str) -> None:
    kept: list[str] = []
    skipping = False
    for line in MINIMAL.splitlines():
        if line.startswith("["):
            skipping = line.startswith((f"[{section}]", f"[{section}."))
        if not skipping and not line.startswith(f"{section} ="):
            kept.append(line)
    assert f"policy.toml:1: {section}: missing; it is mandatory" in problems_of("\n".join(kept))


def test_production_needs_a_policy_head_that_somebody_signs() -> None:
    text = MINIMAL.replace("[silo]", 'mode = "production"\n[silo]', 1)
    (found,) = problems_of(text)
    assert 'policy: mode = "production" needs id, version, valid_from, valid_until and signed_by' in found
    production = Edit('"trial"', '"production"')
    head = f'version     = 3\nprevious    = "sha256:{"0" * 64}"'
    signers = Edit("version     = 3", f'{head}\nsigned_by   = {{ need = 1, of = ["dpo"] }}')
    assert [line.split(": ")[1] for line in problems_of(edited(production))] == ["policy.previous", "policy.signed_by"]
    assert parse(edited(production, signers).encode(), "p").mode == "production"


def test_sections_are_compared_even_when_one_of_them_is_bad() -> None:
    text = edited(
        Edit('entity    = "patient"', "entity    = 1"),
        Edit('id_column = "patient_id"', 'id_column = "person"'),
        Edit("delta       = 1e-6", 'delta       = "small"'),
        Edit('["health-research", "billing"]', '["health-reserch"]'),
    )
    assert [line.split(": ")[1] for line in problems_of(text)] == [
        "privacy_unit.entity",
        VISITS,
        "budget.delta",
        "analysts.ana.purposes",
    ]


def test_all_problems_are_reported_at_once_in_the_order_of_the_file() -> None:
    text = (
        edited(
            Edit('"hospital"', '"hospice"'),
            Edit("max_rows  = 2", "max_rows  = 0"),
            Edit("[0, 110]", "[110, 0]"),
            Edit("1e-6", "0.5"),
            Edit("min_cohort  ", "min_cohrt  "),
        )
        + "[consent]\n"
    )
    found = problems_of(text)
    paths = [line.split(":")[2].strip() for line in found]
    assert paths == [
        "silo.sector",
        "privacy_unit.max_rows",
        f"{VISITS}.age",
        "budget.delta",
        "disclosure.min_cohrt",
        "consent",
    ]
    numbers = [int(line.split(":")[1]) for line in found]
    assert numbers == sorted(set(numbers))


def test_cross_section_problems_come_together() -> None:
    text = edited(
        Edit('id_column = "patient_id"', 'id_column = "person"'), Edit('["health-research", "billing"]', '["x"]')
    )
    assert len(problems_of(text)) == 2


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (Edit('mode   = "trial"', 'mode   = "trial'), "not TOML"),
        (Edit('mode   = "trial"', 'mode   = "trial"\nmode = "trial"'), "not TOML"),
        (Edit("[silo]", "[silo"), "not TOML"),
        (Edit("max_rows  = 2", "max_rows  ="), "not TOML"),
    ],
    ids=["open quote", "key twice", "open header", "no value"],
)
def test_what_is_not_toml_is_named_with_its_line(edit: Edit, problem: str) -> None:
    text = edited(edit)
    (found,) = problems_of(text)
    number = int(found.split(":")[1])
    changed = line_of(text, edit.new.split("\n")[-1])
    assert number == changed
    assert problem in found


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "+nan"])
def test_numbers_that_are_not_finite_are_refused(number: str) -> None:
    found = problems_of(edited(Edit("rho = 1.0", f"rho = {number}")))
    assert len(found) == 1
    assert "is not a finite number" in found[0]


def test_what_is_not_utf8_is_refused() -> None:
    assert problems_of(POLICY.encode() + b"# \xff\n") == ["policy.toml:1: not UTF-8 text"]


def test_missing_and_oversized_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyFileError, match=r"nowhere\.toml:1: the policy file cannot be read") as missing:
        load(tmp_path / "nowhere.toml")
    assert missing.value.hint
    with pytest.raises(PolicyFileError, match=":1: the policy file cannot be read"):
        load(tmp_path)
    large = tmp_path / "large.toml"
    large.write_bytes(POLICY.encode() + b"#" * (1 << 20))
    with pytest.raises(PolicyFileError, match=r"large\.toml:1: the file has \d+ bytes, at most 1048576 are read"):
        load(large)
    large.write_bytes(POLICY.encode() + b"#" * ((1 << 20) - len(POLICY.encode())))
    assert load(large).policy == policy()


def test_absent_sections_are_closed() -> None:
    read = parse(MINIMAL.encode(), "policy.toml")
    assert read.mode == "trial"
    assert read.analysts == {}
    assert read.disclosure.aggregates == ()
    assert read.disclosure.max_dimensions == 0
    assert read.disclosure.max_groups == 1
    assert read.disclosure.min_silos == 3
    assert read.protection.accept == ()
    assert read.protection.max_colluding == 1
    assert read.privacy_unit.max_silos == 1
    assert [one.columns for one in open_tables(read)] == [()]
    asked = request()
    (denial,) = decide(read, asked, bytes(32), Spending(0), NOW)
    assert denial.code == "ANALYST_UNKNOWN"


def test_a_named_analyst_alone_opens_neither_aggregate_nor_backend_nor_group() -> None:
    analyst = f'[analysts.ana]\nkey = "{KEY}"\npurposes = ["health-research"]\nuntil = 2036-01-01T00:00:00Z\n'
    read = parse((MINIMAL + analyst).encode(), "policy.toml")
    codes = {denial.code for denial in decide(read, request(), bytes(32), Spending(0), NOW)}
    assert codes >= {"COLUMN_CLOSED", "AGGREGATE", "MAX_DIMENSIONS", "MAX_GROUPS", "BACKEND"}


@pytest.mark.parametrize("name", ["unit", "type", "step", "domain", "unknown", "class", "int", "str", "decimal"])
def test_a_column_named_like_a_key_is_reported_like_any_other(name: str) -> None:
    line = f'{name} = {{ type = "string", class = "internal", roles = [], rolez = 1 }}'
    text = edited(Edit("diary  =", f"{line}\ndiary  ="))
    (found,) = problems_of(text)
    assert found.startswith(f"policy.toml:{line_of(text, 'rolez')}: {VISITS}.{name}.rolez: unknown key")
    assert "'roles'" in found


def test_an_analyst_named_like_a_key_is_reported_like_any_other() -> None:
    text = edited(Edit("[analysts.ana]", "[analysts.key]"), Edit("until    =", "untill   ="))
    assert any(
        "analysts.key.untill: unknown key (found 'untill'; did you mean 'until')" in line for line in problems_of(text)
    )


def test_cross_section_problems_find_the_line_of_a_name_with_a_dot() -> None:
    text = edited(
        Edit("[sources.visits]", '[sources."visits.v2"]'),
        Edit("[sources.visits.columns]", '[sources."visits.v2".columns]'),
        Edit("patient_id = {", "person = {"),
    )
    (found,) = problems_of(text)
    assert found.startswith(f'policy.toml:{line_of(text, ".columns]")}: sources."visits.v2".columns: ')


def test_unusual_line_separators_do_not_shift_line_numbers() -> None:
    text = edited(Edit('mode   = "trial"', 'mode   = "trial"  # a\u2028b\x85c'), Edit('"hospital"', '"hospice"'))
    (found,) = problems_of(text)
    assert found.startswith(f"policy.toml:{line_of(text, 'hospice')}: silo.sector: ")


HIDING = ["a\\u001b[2Kb", "a\\nb", "\\u202eb", "a\\u200bb", "a\\u00a0b", "\\u0085"]


@pytest.mark.parametrize("text", HIDING)
def test_no_text_of_a_policy_can_hide_what_commands_show(text: str) -> None:
    for edit, path in (
        (Edit('"North Hospital"', f'"{text}"'), "silo.controller"),
        (Edit('["medicine"', f'["{text}"'), "sources.visits.columns.ward.domain.0"),
        (Edit("[purposes.billing]", f'[purposes."{text}"]'), None),
        (Edit("[disclosure]", f'"{text}" = 1\n[disclosure]'), None),
    ):
        found = problems_of(edited(edit))
        (one,) = [line for line in found if "is not seen or moves others" in line]
        assert all(line.isprintable() for line in found)
        if path is not None:
            place, where, _ = one.removeprefix("policy.toml:").split(": ", 2)
            assert (int(place), where) == (line_of(edited(edit), text), path)


def test_text_in_other_scripts_is_text() -> None:
    name = "Çukurova Ünv. 病院 \U0001f3e5 עברית"
    assert policy(Edit("North Hospital", name)).silo.controller == name


@pytest.mark.parametrize("number", [str(2**63), str(-(2**63) - 1), f"0x{'F' * 6000}", f"0b{'1' * 20000}"])
def test_an_integer_beyond_64_bits_is_named_with_its_line_beside_other_problems(number: str) -> None:
    for old, new in (
        ("version     = 3", f"version     = {number}"),
        ("max_rows  = 2", f"max_rows  = {number}"),
        ("rho = 1.0", f"rho = {number}"),
        ("domain = [-1, 0, 1, 2]", f"domain = [-1, 0, {number}]"),
        ("bounds = [0, 110]", f"bounds = [0, {number}]"),
    ):
        text = edited(Edit(old, new), Edit('"hospital"', '"hospice"'))
        first, second = sorted(problems_of(text), key=lambda line: "hospice" in line)
        assert first.startswith(f"policy.toml:{line_of(text, number)}: ")
        assert first.endswith(": an integer beyond 64 bits; the largest is 9223372036854775807")
        assert "hospice" in second


@pytest.mark.parametrize(
    "line",
    [
        ".".join("a" * 9) + " = 1",
        "[" + " . ".join("b" * 40) + "]",
        "x = { " + ".".join(["'a.b'"] * 9) + " = 1 }",
        ".".join(['"a\'"'] * 200_000) + " = 1",
    ],
    ids=["key", "header", "inline", "quoted"],
)
def test_a_key_of_many_parts_is_refused_before_it_is_read(line: str) -> None:
    began = time.process_time()
    assert problems_of(f"{line}\n{POLICY}") == ["policy.toml:1: a key has more than 8 parts between dots"]
    assert time.process_time() - began < 2


@pytest.mark.parametrize("text", ["." * 200, "1.2, " * 30, "a. " * 60 + "b.c", ".".join("a" * 8)])
def test_dots_that_are_no_key_are_text(text: str) -> None:
    edit = Edit('uri  = "visits.parquet"', f'uri  = "visits.parquet"  # {text}\nlookback_days = 9\ntime_column = "x"')
    assert not [line for line in problems_of(edited(edit)) if "parts" in line]


@pytest.mark.parametrize(
    "edit",
    [
        Edit("[0, 110]", "[0, 1e40]"),
        Edit("[0, 110]", f"[0, 1{'0' * 40}]"),
        Edit("[0, 110]", f"[0, 1{'0' * 5000}]"),
        Edit("rho = 1.0", "rho = 1e9999999999999999999"),
        Edit("rho = 1.0", "rho = 1e-9999999999999999999"),
        Edit("version     = 3", f"version     = {'[' * 3000}{']' * 3000}"),
        Edit('mode   = "trial"', f'mode   = "trial"\nx = {"{a=" * 3000}1{"}" * 3000}'),
    ],
    ids=["1e40", "41 digits", "5000 digits", "huge exponent", "tiny exponent", "deep list", "deep table"],
)
def test_extreme_values_are_problems_of_the_file(edit: Edit) -> None:
    problems_of(edited(edit))


@pytest.mark.parametrize(
    "edit",
    [
        Edit('"internal", roles = ["filter"]', '"internal", roles = ["filter"], domain = ["a", "b"]'),
        Edit('roles = ["measure", "filter"], bounds = [0, 110]', 'roles = ["filter"], bounds = [110, 0]'),
        Edit("[0, 110]", "[2000000000000000000, 2000000000000000100]"),
        Edit(COST, "bounds = [0, 1], step = 0.0000000005"),
        Edit('unit = "year"', f'unit = "{"x" * 201}"'),
        Edit("[-1, 0, 1, 2]", str(list(range(-1, 10_001)))),
    ],
    ids=["no unknown", "bounds reversed", "bounds beyond the wire", "step digits", "unit", "domain size"],
)
def test_what_loads_can_be_published(edit: Edit) -> None:
    """A silo publishes its policy to whoever may ask; one that cannot be published must not load."""
    text = edited(edit)
    try:
        read = parse(text.encode(), "policy.toml")
    except PolicyFileError:
        return
    assert open_tables(read)


def _survives(raw: bytes) -> None:
    try:
        read = parse(raw, "policy.toml")
    except PolicyFileError as err:
        message = err.message
    else:
        open_tables(read)
        return
    assert all(line.startswith("policy.toml:") for line in message.split("\n")) or ": not TOML" in message


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_mutated_bytes_load_or_are_refused(data: st.DataObject) -> None:
    raw = bytearray(POLICY.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(raw)))
        length = data.draw(st.integers(0, 6))
        raw[start : start + length] = data.draw(
            st.binary(max_size=4) | st.text(string.printable, max_size=6).map(str.encode)
        )
    _survives(bytes(raw))


VALUES = ["0", "-1", "1e40", "0.5", "true", "[]", "{}", '""', '"x"', "2030-01-01", "2030-01-01T00:00:00", "[[1], 2]"]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_mutated_lines_load_or_are_refused(data: st.DataObject) -> None:
    lines = POLICY.split("\n")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["drop", "repeat", "move", "value", "section"])):
            case "drop":
                lines[at] = ""
            case "repeat":
                lines.insert(at, lines[at])
            case "move":
                lines.insert(data.draw(st.integers(0, len(lines))), lines[at])
                lines[at] = ""
            case "value":
                lines[at] = lines[at].partition("=")[0] + "= " + data.draw(st.sampled_from(VALUES))
            case _:
                lines[at] = data.draw(
                    st.sampled_from(["[a]", "[silo.x]", "[sources.kind]", "[analysts.key]", "[[silo]]"])
                )
    _survives("\n".join(lines).encode())


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
@example(b"")
@example(b"sources = 1")
@example(b"[sources.kind]\nx = 1")
@example(b"[analysts.key]\nx = 1")
def test_arbitrary_bytes_are_refused(raw: bytes) -> None:
    assert problems_of(raw)


SEEN = 'seen = { type = "date", class = "internal", roles = ["filter"], granularity = "day" }\ndiary  ='
KIND = 'kind = "parquet"\nuri  = "visits.parquet"'
DECIDED = (
    '[consent]\nmode = "table"\nsource = "env:DSN#consent.decisions"\nsubject = "p"\npurpose = "u"\n'
    'given_at = "g"\nwithdrawn_at = "w"\n'
)
WORD = Edit('vocabulary   = "DUO:0000006"', 'vocabulary   = "{}"')


@every(
    ("edits", "path", "problem"),
    [
        ([Edit("uri  =", 'time_column = "age"\nuri  =')], "sources.visits.time_column", "no date column of that name"),
        ([Edit("uri  =", "lookback_days = 9\nuri  =")], "sources.visits.lookback_days", "needs time_column"),
        ([Edit("diary  =", SEEN)], f"{VISITS}.seen", "must be the source's time_column, with lookback_days"),
        (
            [Edit("diary  =", SEEN), Edit("uri  =", 'time_column = "seen"\nlookback_days = 1000\nuri  =')],
            f"{VISITS}.seen.granularity",
            "fewer than 1000 are possible",
        ),
        ([Edit("diary  =", SEEN.replace(', granularity = "day"', ""))], f"{VISITS}.seen", "needs granularity"),
        ([Edit("diary  =", SEEN.replace('"filter"', '"measure"'))], f"{VISITS}.seen", "nothing else"),
        ([Edit('unit = "year"', 'granularity = "day"')], f"{VISITS}.age", "granularity is for a date column, not"),
        ([Edit('unit = "year"', "sole_dimension = true")], f"{VISITS}.age", "sole_dimension is for a dimension"),
        ([Edit("[0, 110]", '[1, 110], missing = "zero"')], f"{VISITS}.age", "needs bounds that hold 0"),
        ([Edit("unknown = -1 }", "unknown = -1, can_be_missing = false }")], f"{VISITS}.grade", "is for a measure"),
        ([Edit("[-1, 0, 1, 2], unknown = -1", '"discover"')], f"{VISITS}.grade", "is for a string column, not for int"),
        ([Edit(WORD.old, WORD.new.format("dpv:ResearchAndDevelopmnt"))], "purposes.health-research.vocabulary",
         "no word of DPV or DUO (found 'dpv:ResearchAndDevelopmnt'; did you mean 'dpv:ResearchAndDevelopment')"),
        ([Edit(WORD.old, WORD.new.format("DUO:0000021"))], "purposes.health-research", "give ethics_ref"),
        ([Edit(WORD.old, WORD.new.format("DUO:0000022"))], "purposes.health-research", "give recipients_in"),
        ([Edit('"parquet"', '"postgres"')], "sources.visits", "never a password"),
        ([Edit('"parquet"', '"duckdb"')], "sources.visits", "a duckdb uri is FILE#TABLE"),
        ([Edit(KIND, 'kind = "duckdb"\nuri = "a.duckdb#b.c.d"')], "sources.visits", "FILE#SCHEMA.TABLE"),
        ([Edit(KIND, 'kind = "duckdb"\nuri = "a.duckdb#b."')], "sources.visits", "FILE#SCHEMA.TABLE"),
        ([Edit(KIND, 'kind = "postgres"\nuri = "env:A-B#c"')], "sources.visits", "never a password"),
        ([Edit(KIND, 'kind = "postgres"\nuri = "postgresql://a:b@c/d#e"')], "sources.visits", "never a password"),
        ([Edit(KIND, 'kind = "postgres"\nuri = "env:A#b\\"; DROP TABLE c"')], "sources.visits", "never a password"),
        ([Edit("[budget]", f'{DECIDED}stale_after_hours = 2\n[budget]')], "consent.stale_after_hours",
         "a database does not say when it was last fed"),
        ([Edit("[budget]", DECIDED.replace("env:DSN#", "decisions.db#1") + "[budget]")], "consent.source",
         "a duckdb uri is"),
        ([Edit("[budget]", '[consent]\nmode = "column"\ncolumn = "smoker"\nstale_after_hours = 1\n[budget]'),
          Edit(KIND, 'kind = "postgres"\nuri = "env:DSN#c"')], "sources.visits.kind",
         "a database does not say when its rows were last fed"),
        ([Edit('jurisdiction = "NO"', 'jurisdiction = "Norway"')], "silo.jurisdiction", "pattern"),
        ([Edit("version     = 3", 'version = 3\nsigned_by = { need = 3, of = ["a", "b"] }')], "policy.signed_by",
         "need = 3 of 2 people can never be met"),
        ([Edit("version     = 3", 'version = 3\nsigned_by = { need = 1, of = ["a", "a"] }')], "policy.signed_by",
         "names somebody twice"),
        ([Edit("[budget]", '[[approvals]]\nwhen = { purpose = "bill" }\nneed = 1\nof = ["a"]\n'
                           "expires_hours = 1\n[budget]")],
         "approvals.0.when.purpose", "not in purposes (found 'bill'; did you mean 'billing')"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_named_with_its_place(edits: list[Edit], path: str, problem: str) -> None:
    found = problems_of(edited(*edits))
    assert any(line.split(": ")[1] == path and problem in line for line in found), found


def test_entries_of_a_list_have_lines_of_their_own() -> None:
    limit = '[[budget.limits]]\npurpose = "billing"\nwindow = "calendar-day"\nrho = {}\n'
    text = POLICY + limit.format("0.1") + limit.format("0")
    (found,) = problems_of(text)
    assert found.startswith(f"policy.toml:{len(text.splitlines())}: ")
    assert "budget.limits.1.rho: " in found


def test_who_can_never_sign_or_approve_is_warned_of(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    signers = Edit("version     = 3", 'version = 3\nsigned_by = { need = 2, of = ["dpo", "ciso"] }')
    file.write_text(edited(signers) + f'[people.dpo]\nkey = "{KEY}"\n')
    found = [line.split(": ", 1)[1] for line in load(file).warnings if "policy.signed_by" in line]
    nobody, all_of_them = sorted(line.split(": ", 1)[1] for line in found)[::-1]
    assert nobody == "without a key under [people] nobody can sign: ciso; so 2 of them can never sign"
    assert all_of_them == "need = 2 of 2: a version that loosens anything can never be signed"
