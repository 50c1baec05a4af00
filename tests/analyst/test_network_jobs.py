"""Job files with the tables [model], [optimiser] and [rounds]: what they mean, and what a wrong key is told."""

from decimal import Decimal

import pytest

from analyst.errors import AnalystError
from analyst.training.job import Job, parsed_job
from analyst.training.run import job_digest

HEAD = """\
schema = "consilo-job/1"
table = "loans"
purpose = "lending"
label = "ok"
features = ["kind", "debt"]
release = "exact"
"""
PLAIN = f"""\
model = "hashed-logistic"
rounds = 12
{HEAD}
[options]
bits = 12
ridge = 0.5
value_bits = 8
"""
TABLES = f"""\
{HEAD}
[model]
family = "hashed-logistic"
bits = 12
ridge = 0.5
[optimiser]
value_bits = 8
[rounds]
most = 12
"""


def job_of(text: str) -> Job:
    return parsed_job(text, "job.toml")


def problem(text: str) -> tuple[str, str]:
    with pytest.raises(AnalystError) as caught:
        job_of(text)
    return caught.value.message, caught.value.hint


def test_tables_mean_what_plain_keys_say() -> None:
    assert job_of(TABLES) == job_of(PLAIN)
    assert job_digest(job_of(TABLES)) == job_digest(job_of(PLAIN))


def test_a_job_of_before_keeps_its_hash() -> None:
    """By this hash `JOB.run.json` names its job, so a command that was updated goes on with a run."""
    expected = "26965467cdb7c0e38d311e063fed2c3f"
    assert job_digest(job_of(PLAIN)).hex()[:32] == expected


def test_rounds_of_any_family_have_a_table() -> None:
    job = job_of(
        f'model = "logistic-regression"\n{HEAD}\n[rounds]\nmost = 9\npatience = 2\ndeadline = 300\n'
        '[held_out]\nshare = 0.25\n[metric]\nname = "auc"\n'
    )
    assert (job.planned, job.deadline) == (9, 300)
    assert job.metric is not None
    assert job.metric.patience == 2


def test_lists_and_numbers_are_options_in_one_writing() -> None:
    job = job_of(TABLES.replace("bits = 12", 'crossed = ["kind*debt"]'))
    assert job.options == {"crossed": "kind*debt", "ridge": Decimal("0.5"), "value_bits": 8}


@pytest.mark.parametrize(
    ("before", "after", "message", "hint"),
    [
        ('family = "hashed-logistic"', 'family = "hashed-logistik"', "model.family: no family", "did you mean"),
        ('family = "hashed-logistic"', "", "model: a [model] names either family or graph", 'family = "mlp"'),
        ("ridge = 0.5", "rigde = 0.5", "model.rigde: no key of [model] of hashed-logistic", "did you mean 'ridge'"),
        ("ridge = 0.5", 'graph = "sha256:12"', "model: a [model] names either", "sha256"),
        (
            'family = "hashed-logistic"',
            'graph = "12"',
            "model.graph: found '12', expected the name",
            "consilo model pack",
        ),
        ("value_bits = 8", "valu_bits = 8", "optimiser.valu_bits: no key of [optimiser]", "did you mean 'value_bits'"),
        ("value_bits = 8", 'algorithm = "fedavgg"', "optimiser.algorithm: no algorithm 'fedavgg'", "did you mean"),
        ("most = 12", "mots = 12", "rounds.mots: no key of [rounds]", "did you mean 'most'"),
        ("most = 12", "patience = 2", "rounds.patience: patience needs a [metric]", "[held_out]"),
        ("most = 12", "deadline = 0", "deadline: Input should be greater", "docs/training.md"),
        (
            "most = 12",
            "share = 0.5",
            "rounds.share: no share of silos in a run of hashed-logistic (exact)",
            "remove it",
        ),
        ("[rounds]", "[options]\nbits = 3\n[rounds]", "options: [options] beside a table [model]", "[optimiser]"),
        ("[rounds]", "[optimizer]\nrate = 1\n[rounds]", "optimizer: Extra inputs", "did you mean 'optimiser'"),
    ],
)
def test_a_wrong_key_is_named_with_what_was_expected(before: str, after: str, message: str, hint: str) -> None:
    found, told = problem(TABLES.replace(before, after, 1))
    assert message in found
    assert hint in told
    assert "\n" not in found + told


def test_a_table_of_networks_beside_another_family_says_what_to_write() -> None:
    found, told = problem(f'model = "logistic-regression"\n{HEAD}\n[optimiser]\nrate = 1\n')
    assert found == "job.toml: optimiser: it is of a network, and model is 'logistic-regression'"
    assert "[options]" in told
    found, told = problem(f'model = "logistic-regression"\n{HEAD}\n[rounds]\nshare = 0.5\n')
    assert found.startswith("job.toml: rounds.share")
