"""Attack stories on catalogues: what one silo says of itself never spoils everybody's answer unseen, nor at a price."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from rich.console import Console

from analyst.demo.hospitals import PURPOSE
from analyst.errors import AnalystError, SqlError
from analyst.reports.cut import definition_of as definition_of_answer
from analyst.reports.estimates import Threshold
from analyst.reports.render import print_offer, render, show_cell
from analyst.reports.report import Report
from analyst.sql.offer import Offer
from analyst.sql.plan import plan
from crypto.errors import WireError
from policies.document.catalogue import definition_of, open_tables
from policies.document.describe import worded_policy
from policies.document.policy import Policy
from policies.domains import LongDomain
from policies.errors import PolicyFileError
from policies.requests.catalogue import Catalogue
from policies.requests.query import Aggregate, Plan
from policies.requests.tables import TableColumn
from policies.units import MAX_DOMAIN
from tests.harness.example_policy import WARD, Edit, catalogue, offer, policy, request, table
from tests.harness.simulator import no_noise, simulate

QUESTION = "SELECT COUNT(*) AS n, AVG(age) AS mean_age FROM visits"
DATED = (
    Edit(
        "diary  =",
        'month = { type = "date", class = "internal", roles = ["filter", "dimension"], granularity = "month" }\n'
        "diary  =",
    ),
    Edit('uri  = "visits.parquet"', 'uri  = "visits.parquet"\ntime_column = "month"\nlookback_days = 800'),
    Edit("max_groups     = 12", "max_groups     = 60"),
)


def of_five(poisoned: Policy, usual: Policy | None = None) -> Offer:
    """Return the offer of five silos, of which the last one says something else."""
    return offer(*[usual or policy()] * 4, poisoned)


@pytest.mark.parametrize(
    ("edit", "says", "does"),
    [
        (Edit("max_silos = 2", "max_silos = 100"), "by max_silos = 100, where most silos say 2", "be 50 times as wide"),
        (Edit("max_silos = 2", "max_silos = 3"), "by max_silos = 3, where most silos say 2", "be 1.5 times as wide"),
        (Edit("1e-6", "1e-12"), "by delta = 1E-12, where most silos say 0.000001", "be 1.51 times as wide"),
        (Edit("min_cohort     = 25", "min_cohort = 100000"), "by min_cohort = 100000, where most", "4e+03 times"),
    ],
    ids=["many silos", "one silo more", "a small delta", "a great cohort"],
)
def test_a_condition_that_would_spoil_all_answers_is_told_before_anything_is_paid(
    edit: Edit, says: str, does: str
) -> None:
    poisoned = of_five(policy(edit))
    with pytest.raises(SqlError) as caught:
        plan(QUESTION, poisoned)
    assert caught.value.message.startswith("silo-4 would spoil everybody's answer: ")
    assert says in caught.value.message
    assert does in caught.value.message
    assert caught.value.hint == (
        "ask the others alone: --silos silo-0,silo-1,silo-2,silo-3; or name silo-4 too, to accept it"
    )
    usual = plan(QUESTION, of_five(policy())).table
    assert plan(QUESTION, poisoned.only(["silo-0", "silo-1", "silo-2", "silo-3"])).table == usual
    accepted = plan(QUESTION, poisoned.only(list(poisoned.silos)))
    assert accepted.table.max_silos == max(one.max_silos for one in poisoned.silos.values())


@pytest.mark.parametrize(
    "edit",
    [
        Edit("max_silos = 2", "max_silos = 1"),
        Edit("1e-6", "1e-5"),
        Edit("1e-6", "1e-7"),
        Edit("min_cohort     = 25", "min_cohort = 2"),
        Edit("min_cohort     = 25", "min_cohort = 100"),
        Edit("min_silos      = 3", "min_silos      = 5"),
    ],
)
def test_what_only_this_silo_bears_or_hardly_changes_an_answer_is_no_poison(edit: Edit) -> None:
    assert plan(QUESTION, of_five(policy(edit))).plan.aggregates


def test_two_that_differ_among_each_other_do_not_hide_each_other() -> None:
    silos = offer(policy(), policy(), policy(), policy(Edit("max_silos = 2", "max_silos = 90")),
                  policy(Edit("max_silos = 2", "max_silos = 100")))  # fmt: skip
    with pytest.raises(SqlError, match=r"silo-3, silo-4 would spoil.*max_silos = 100, where most silos say 2"):
        plan(QUESTION, silos)


def test_a_silo_that_reads_few_days_does_not_shorten_everybodys_calendar() -> None:
    few = (*DATED[:1], Edit(DATED[1].old, DATED[1].new.replace("800", "31")), *DATED[2:])
    question = "SELECT month, COUNT(*) AS n FROM visits GROUP BY month"
    usual = policy(*DATED)
    assert plan(question, of_five(usual, usual)).plan.group_by == ("month",)
    with pytest.raises(SqlError) as caught:
        plan(question, of_five(policy(*few), usual))
    first, largest, smallest = caught.value.message.split("\n")
    assert first == "the silos define 'visits' in 2 ways:"
    assert largest.startswith("  silo-0, silo-1, silo-2, silo-3: month date by periods from ")
    assert smallest.startswith("  silo-4: month date by periods from ")


def saying(by: Policy, column: str, **changes: object) -> Catalogue:
    """Return what a silo sends that says something else of a column than any policy could."""
    good = catalogue(by)
    (table,) = good.tables
    columns = tuple(
        one.model_copy(update={"column": one.column.model_copy(update=changes)}) if one.column.name == column else one
        for one in table.columns
    )
    return good.model_copy(update={"tables": (table.model_copy(update={"columns": columns}),)})


def of_six(poisoned: Catalogue, usual: Policy) -> Offer:
    """Return the offer of five silos, and of one whose name comes first and whose definitions so do."""
    return Offer({"alder": poisoned, **of_five(usual, usual).silos})


def test_values_that_read_alike_are_no_one_definition() -> None:
    """Hope: of two definitions that are alike in words the first silo's is taken, and all others refuse everybody."""
    question = "SELECT ward, COUNT(*) AS n FROM visits GROUP BY ward"
    alike = saying(policy(), "ward", domain=("medicine, surgery", "unknown"))
    assert plan(question, of_six(catalogue(policy()), policy())).plan.group_by == ("ward",)
    with pytest.raises(SqlError, match=r"the silos define 'visits' in 2 ways:") as caught:
        plan(question, of_six(alike, policy()))
    assert '\n  alder: ward string one of "medicine, surgery", unknown; unknown is unknown' in caught.value.message


def test_a_calendar_that_ends_early_does_not_shorten_everybodys() -> None:
    """Hope: a calendar that begins as all others do, and has one period, makes all newer rows `unknown`."""
    question, usual = "SELECT month, COUNT(*) AS n FROM visits GROUP BY month", policy(*DATED)
    whole = month_of(usual).domain
    for short in (whole[:2], whole[: len(whole) // 2]):
        early = saying(usual, "month", domain=(*short, "unknown"))
        Catalogue.decode(early.encode())
        with pytest.raises(SqlError) as caught:
            plan(question, of_six(early, usual))
        assert caught.value.message.endswith(f"  alder: month date by periods from {whole[0]} to {short[-1]}")
        assert "--silos silo-0,silo-1,silo-2,silo-3,silo-4" in caught.value.hint
    midnight = saying(usual, "month", domain=(*whole[:-2], "unknown"))
    assert plan(question, of_six(midnight, usual)).table.column("month").domain == (*whole[:-2], "unknown")


def month_of(by: Policy) -> TableColumn:
    return next(one.column for one in catalogue(by).tables[0].columns if one.column.name == "month")


@pytest.mark.parametrize(
    ("column", "changes"),
    [
        ("grade", {"domain": ("-1", "x")}),
        ("grade", {"domain": ("-1", "0, 1", "2")}),
        ("grade", {"domain": ("-1", "01")}),
        ("grade", {"domain": ("-1", "\N{ARABIC-INDIC DIGIT ONE}")}),
        ("ward", {"domain": ("a\x1b[2K", "unknown")}),
        ("ward", {"domain": ("a\nward,n\nb,1", "unknown")}),
        ("smoker", {"domain": ("maybe", "true"), "unknown": "maybe"}),
        ("cost", {"domain": ("1", "2"), "unknown": "1"}),
        ("month", {"domain": ("2024-01", "2024-03", "unknown"), "unknown": "unknown"}),
        ("month", {"domain": ("2024-02", "2024-01", "unknown"), "unknown": "unknown"}),
        ("month", {"domain": ("2023-Q4", "2024-01", "unknown"), "unknown": "unknown"}),
        ("month", {"domain": ("2024-01", "2024-02", "?"), "unknown": "?"}),
        ("month", {"domain": ("0", "1", "unknown"), "unknown": "unknown"}),
        ("month", {"domain": ("unknown",), "unknown": "unknown"}),
        ("month", {"domain": ("2024-1\N{ARABIC-INDIC DIGIT ONE}", "unknown"), "unknown": "unknown"}),
    ],
)
def test_values_that_are_none_of_their_type_are_no_catalogue(column: str, changes: dict[str, object]) -> None:
    """Hope: whoever asks ends with an error that nobody explains, as the values are computed with as what they say."""
    poisoned = saying(policy(*DATED), column, **changes)
    with pytest.raises(WireError, match=f"the values of '{column}' are none of the type"):
        Catalogue.decode(poisoned.encode())


def test_a_long_list_of_numbers_that_are_none_ends_no_question() -> None:
    """Hope: the groups of an answer that was paid cannot be written, as one of the numbers is none."""
    values = ("-1", "x", *map(str, range(2, MAX_DOMAIN + 9)))
    offered = Offer({"alder": saying(policy(), "grade", domain=LongDomain(bytes(32), len(values), values))})
    with pytest.raises(SqlError, match="not in the domain of 'grade': 1 ") as caught:
        plan("SELECT COUNT(*) AS n FROM visits WHERE grade = 1", offered)
    assert caught.value.hint == "write -1 or 2"
    with pytest.raises(SqlError, match="the values of 'grade' are wrong at line 1, column 8: 'x' is no whole number"):
        plan("SELECT grade, COUNT(*) AS n FROM visits GROUP BY grade", offered)


def test_a_definition_commands_no_terminal_and_writes_no_rows_of_an_answer() -> None:
    """Hope: a value of a domain ends the comment in which an answer says by which definition it was given."""
    ward = WARD.model_copy(update={"domain": ("a\nward,n\nb,1", "x\x1b[2K", "unknown")})
    counts = (Aggregate(function="count", column=None, alias="n"),)
    asked = request(table=table(columns=(ward,)), plan=Plan(where=None, group_by=("ward",), aggregates=counts))
    report = Report(
        columns=("ward", "n"), dimensions={"ward": "ward"}, rows=(), withheld_groups=(), silos={},
        threshold=Threshold(min_cohort=1, sure=False, noisy_count=1.0), rho=0.1, epsilon=1.0, delta=1e-6,
        transcript="00", assumptions=(), definition=definition_of_answer(asked, 1e-6),
    )  # fmt: skip
    assert render(report, "csv").count("\n") == 2, "the comment, and the names of the columns"
    assert "\x1b" not in render(report, "csv") + render(report, "table")


def test_how_owners_agree_is_said() -> None:
    with pytest.raises(SqlError) as caught:
        plan(QUESTION, of_five(policy(Edit("[0, 110]", "[30, 31]"))))
    assert caught.value.hint == (
        "ask silos of one definition alone: --silos silo-0,silo-1,silo-2,silo-3; or their owners agree on one: silo-4"
        f' would write into the policy what silo-0 has, adopts = "{definition_of(policy(), "visits")}"'
    )


def adopting(adopted: str, *edits: Edit) -> Policy:
    return policy(*edits, Edit('uri  = "visits.parquet"', f'uri  = "visits.parquet"\nadopts = "{adopted}"'))


def test_a_policy_that_adopts_a_definition_is_held_to_it() -> None:
    adopted = definition_of(policy(), "visits")
    by = adopting(adopted)
    assert f"visits is held to the table definition {adopted}" in "\n".join(
        sentence for _, sentences in worded_policy(by) for sentence in sentences
    )
    assert offer(by).silos["silo-0"].tables[0].definition.hex() == adopted.removeprefix("sha256:")
    with pytest.raises(PolicyFileError, match=r"policy.toml:26: sources.visits.adopts: the columns here give another"):
        adopting(adopted, Edit("[0, 110]", "[30, 31]"))


@pytest.mark.parametrize(
    ("edits", "is_other"),
    [
        ((Edit("[0, 110]", "[30, 31]"),), True),
        ((Edit("step = 0.01", "step = 0.1"),), True),
        ((Edit('["medicine", "surgery", "unknown"]', '["medicine", "unknown"]'),), True),
        ((Edit("unknown = -1", "unknown = 0"),), True),
        ((Edit("max_rows  = 2", "max_rows  = 1"),), True),
        ((Edit("max_rows  = 2", "max_rows  = 2\nmax_norm = 1"),), True),
        ((Edit('unit = "day" }', 'unit = "day", can_be_missing = false }'),), True),
        ((Edit('"internal", roles = ["filter"]', '"internal", roles = []'),), True),
        ((Edit("1e-6", "1e-7"), Edit("max_silos = 2", "max_silos = 5")), False),
        ((Edit('roles = ["measure"], bounds = [0, 60]', 'roles = ["measure", "filter"], bounds = [0, 60]'),), False),
        ((Edit("diary  =", "secret ="),), False),
    ],
)
def test_a_definition_is_another_one_where_answers_mean_something_else(edits: tuple[Edit, ...], is_other: bool) -> None:
    assert (definition_of(policy(*edits), "visits") != definition_of(policy(), "visits")) == is_other


def test_a_calendar_has_one_definition_on_every_day() -> None:
    by = policy(*DATED)
    assert [open_tables(by, at)[0].definition for at in (0, 10**9, 2 * 10**9)] == [open_tables(by)[0].definition] * 3
    other = policy(DATED[0], Edit(DATED[1].old, DATED[1].new.replace("800", "31")), DATED[2])
    assert definition_of(other, "visits") != definition_of(by, "visits")


def test_a_silo_that_claims_a_table_and_opens_nothing_of_it_is_named() -> None:
    empty = catalogue(policy())
    empty = empty.model_copy(update={"tables": (empty.tables[0].model_copy(update={"columns": ()}),)})
    silos = {**of_five(policy()).silos, "silo-4": empty}
    with pytest.raises(SqlError, match=r"unknown column 'age' .*: silo-4 does not open it$") as caught:
        plan(QUESTION, Offer(silos))
    assert caught.value.hint == "ask the others alone: --silos silo-0,silo-1,silo-2,silo-3"


@pytest.mark.parametrize("changed", ["tables", "columns"])
def test_a_catalogue_names_nothing_twice(changed: str) -> None:
    good = catalogue(policy())
    (table,) = good.tables
    twice = {"tables": (table, table), "columns": (table.model_copy(update={"columns": table.columns * 2}),)}[changed]
    with pytest.raises(ValidationError, match="named twice"):
        Catalogue.model_validate({**dict(good), "tables": twice})


@pytest.mark.parametrize(
    ("key", "value"),
    [("delta", "1e-13"), ("delta", "1e-4"), ("delta", "0"), ("delta", "1e-999999999"), ("max_silos", 0),
     ("max_silos", 10**9), ("max_rows", 0), ("max_rows", 10**9), ("max_norm", 0), ("max_norm", 2),
     ("min_cohort", 2**40), ("min_cohort", -1)],
)  # fmt: skip
def test_what_lies_beyond_every_policy_is_no_catalogue(key: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Catalogue.model_validate({**dict(catalogue(policy())), key: value})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("max_rows  = 1 ", "max_rows  = 1\nmax_silos = 100 "),
        ("delta       = 1e-6", "delta       = 1e-12"),
        ("bounds = [30, 90]", "bounds = [30, 31]"),
    ],
    ids=["max_silos", "delta", "bounds"],
)
def test_one_poisoned_silo_costs_nobody_anything_and_the_rest_answers(home: Path, old: str, new: str) -> None:
    file = home / "silos" / "rowan" / "policy.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    question = "SELECT COUNT(*) AS n, AVG(age) AS mean_age FROM lung"
    with simulate(home, noise=no_noise) as simulation:
        with pytest.raises(AnalystError) as caught:
            simulation.federation.query(question, purpose=PURPOSE, epsilon=1)
        assert "rowan" in caught.value.message
        assert "--silos aspen,birch,cedar,maple" in caught.value.hint
        assert simulation.spent("aspen") == 0
        rest = ("aspen", "birch", "cedar", "maple")
        report = simulation.federation.query(question, purpose=PURPOSE, epsilon=1, silos=rest)
        mean = report.rows[0]["mean_age"]
        assert getattr(mean, "value", 0) > 55


def test_a_catalogue_that_allows_nothing_breaks_no_list_of_silos(capsys: pytest.CaptureFixture[str]) -> None:
    """The epsilon of rho 0 was a division by zero: one silo ended `consilo silos` for everybody."""
    silos = of_five(policy()).silos
    nothing = silos["silo-4"].model_copy(update={"max_micro_rho": 0, "min_micro_rho": 0})
    print_offer(Offer({**silos, "silo-4": nothing}), ["silo-0", "silo-4"], Console(width=200))
    assert "up to 0.0" in capsys.readouterr().out


def test_a_list_of_silos_says_by_which_norm_they_bound_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    by = policy(Edit("max_rows  = 2", "max_rows  = 20\nmax_norm  = 4"))
    said = "Table visits: at most 2 rows a person or at most 20 rows a person of a norm of at most 4"
    for silos, is_said in ((offer(policy(), by, by), True), (offer(policy()), False)):
        print_offer(silos, silos.silos, Console(width=200))
        assert (said in " ".join(capsys.readouterr().out.split())) == is_said


def test_what_a_catalogue_calls_a_group_commands_no_terminal() -> None:
    assert show_cell("x\x1b[2K\x1b[1A") == "x?[2K?[1A"
