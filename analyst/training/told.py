"""A finished run in words and as JSON, for the analyst; the silos' owners see more."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from analyst.training.auditing import gaps_of, lines_of
from analyst.training.ends import why_ended
from analyst.training.job import Job
from analyst.training.rounds import RoundDone, bytes_in_words
from analyst.training.run import Training
from analyst.training.stopping import released_lines
from policies.networks.names import NETWORKS
from policies.units import counted


def to_json(training: Training) -> str:
    """Return a finished run as JSON."""
    return json.dumps(
        {
            "run": training.run,
            "steps": training.steps,
            "lost": training.lost,
            "holders": list(training.holders),
            "answered": training.answered,
            "rho": training.rho,
            "epsilon": training.epsilon,
            "delta": training.delta,
            "ended": training.ended,
            "rounds": [one.to_dict() for one in training.rounds],
            "seconds": round(sum(one.seconds for one in training.rounds), 3),
            "sent_bytes": sum(one.volume.up for one in training.rounds),
            "received_bytes": sum(one.volume.down for one in training.rounds),
            "reserved": training.reserved,
            "released": training.released,
            "released_at": None if training.stopping is None else list(training.stopping.released),
            "has_model": training.has_model,
            "why_no_model": training.why_no_model or None,
            "audit": [] if training.audited is None else [one.model_dump() for one in gaps_of(training.audited)],
            "why_no_audit": training.why_no_audit or None,
            "metric_rho": training.metric_rho,
            "best_round": training.best_round,
            "why_no_metric": training.why_no_metric,
            "assumptions": list(training.assumptions),
        },
        indent=2,
    )


def show_training(training: Training, job: Job, policies: Mapping[str, Path]) -> str:
    """Return a finished run as text: its cost, its silos, and the silos with the model."""
    what = job.model.replace("-", " ") + ("" if job.label is None else f" of {job.label}")
    lines = [f"run {training.run}: {counted(training.steps, 'step')} of {what}"]
    own = "" if len(training.rounds) == training.steps else " of this command"
    lines += [f"  {silo}: in {counted(count, 'step')}{own}" for silo, count in training.answered.items()]
    lines += _took_lines(training.rounds)
    if training.ended is not None:
        lines.append(why_ended(training.ended, job))
    elif job.is_exact_family:
        done = counted(training.steps, "step")
        lines.append(f"not at its end after {done}: the step is above the tolerance; ask with more rounds")
    if training.has_model:
        lines.append(f"you have the model too, and see it with: consilo model show {training.run[:12]}")
    elif training.has_model is not None:
        lines.append(f"the model was not released to you: {training.why_no_model}")
    lines += _best_lines(training, job)
    if training.why_no_metric:
        lines.append(f"its metric was not told, and the run went on without: {training.why_no_metric}")
    if training.audited is not None:
        lines += lines_of(training.audited, job.audit.limit if job.audit is not None else None)
    elif training.why_no_audit:
        lines.append(f"the model was not audited: {training.why_no_audit}; try again with: consilo watch JOB --once")
    elsewhere = "" if training.has_model else ", and nowhere else"
    lines.append(f"the model is at {', '.join(training.holders) or 'no silo'}{elsewhere}; an owner sees it with")
    lines += [
        f"  consilo-silo models --policy {policies.get(silo, Path('policy.toml'))}" for silo in training.holders[:1]
    ]
    if training.epsilon is not None and training.rho is not None:
        cost = f"epsilon {training.epsilon:.2f} at delta {training.delta:g} (rho {training.rho:g})"
        lines.append(f"cost to each person: {cost}; {training.assumptions[0]}")
        if training.metric_rho is not None:
            lines.append(f"its metrics cost rho {training.metric_rho:g} to each person beside")
        if training.lost:
            lines.append(
                f"of it, {training.lost} of {counted(training.steps + training.lost, 'charge')} gave no report"
            )
        lines += _reserved_lines(training)
    else:
        lines.append(training.assumptions[0])
    return "\n".join(lines)


def _best_lines(training: Training, job: Job) -> Iterator[str]:
    """Yield after which round the model was best by the job's metric, and how an owner takes that one."""
    if training.best_round is None or job.metric is None:
        return
    if training.best_round == training.steps:
        yield f"best by {job.metric.name}: the last round"
        return
    yield f"best by {job.metric.name}: round {training.best_round} of {training.steps}"
    if job.model in NETWORKS:
        yield "  silos keep that model beside the last one: consilo-silo models predict, export with --best"


def _took_lines(rounds: Sequence[RoundDone]) -> Iterator[str]:
    """Yield what the rounds of this command took, and the bytes of a silo that took part in all of them."""
    if rounds:
        sent, received = sum(one.volume.up for one in rounds), sum(one.volume.down for one in rounds)
        seconds = sum(one.seconds for one in rounds)
        yield (
            f"{counted(len(rounds), 'round')} in {seconds:.1f} s, {seconds / len(rounds):.1f} s each; a silo that was"
            f" in all of them sent {bytes_in_words(sent)} and received {bytes_in_words(received)}"
        )


def _reserved_lines(training: Training) -> Iterator[str]:
    """Yield what was reserved ahead for the run, what of it was charged, and what was given back."""
    yield f"reserved ahead, before the first step: rho {training.reserved:g}"
    if training.stopping is not None:
        yield from released_lines(training.released or 0.0, training.stopping)
