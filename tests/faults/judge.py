"""What must be true of a case: a right answer or a clear error, a budget neither lost nor doubled, and a bounded wait.

The judge is pure: it sees what the analyst was told, by the command and by the same command again after all is mended,
and how many times each silo has charged the price of the question after each of the two.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tests.faults.lane import Said
from tests.faults.table import CEDAR, SILOS, Case

Result = Literal["answer", "without", "noise", "again", "error", "charged"]
WORDS: Mapping[Result, str] = {
    "answer": "an answer of all five silos",
    "without": "an answer without the silo, which is named",
    "noise": "an answer in which the silo has only noise; its owner's log says why",
    "again": "an error, or a killed client; the same command gives the answer at no second price",
    "error": "an error, and nothing is charged without an answer",
    "charged": "an error, and it says that the charge stands",
}
DEAD_SILO_S, SILENT_S, ROUND_S, PROGRESS_S = 30.0, 90.0, 130.0, 2.0
FAILS_IN_SILENCE = ("source down", "worker killed", "memory limit met")  # after the commit nobody outside may know
NOISE = "a question was answered by nothing and noise"
MAX_MISSING = 1  # as the policies say; after a restart of the aggregator any silo may be on its way back
FREE = "at no second price"
STANDS = re.compile(r"charge stands|charged this request before|not paid twice")
DEFECT = re.compile(r"Traceback|Task was destroyed|defect|\w+Exception\b|\(\w*(Error|Exception)\)")
CLEAR = (
    r"^no answer: .+",
    r"^no connection to the aggregator: .+",
    r"^the aggregator did not answer within",
    r"^the aggregator refused: .+",
    r"charged this request before",
    r"^the question cannot be kept .+ so it was not sent",
    r"^(too few|only|fewer|no silo).*",
    r"(the clocks of|clock|expired|valid)",
    r"may have the answer to .+ and does not answer",
)


@dataclass(frozen=True, slots=True)
class Seen:
    """All that the judge knows of a case."""

    case: Case
    said: Said
    again: Said
    charged: Mapping[str, float]  # how many prices each silo has spent, after the command
    charged_again: Mapping[str, float]  # and after the same command again
    counts: Mapping[str, int]  # what each silo contributed, if it did
    truth: int  # of all silos, once all is mended
    owner_log: str = ""
    slack: float = 0.0  # of a count, where a silo adds its noise


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a case; `wrong` is what must not be so."""

    case: Case
    result: Result
    waited_s: float
    wrong: tuple[str, ...] = ()
    text: str = ""


def judge(seen: Seen) -> Verdict:
    """Return what became of a case, and all that is wrong with it."""
    wrong = [*_budget(seen), *_wait(seen), *_last(seen)]
    if found := DEFECT.search(seen.said.text):
        wrong.append(f"{found[0]!r} is no word for people")
    if seen.said.count is not None:
        result, more = _answered(seen, seen.said.count)
    else:
        result, more = _unanswered(seen)
    return Verdict(seen.case, result, seen.said.waited_s, (*wrong, *more), seen.said.text)


def is_free(seen: Seen) -> bool:
    """Tell whether the second command was answered by what the first one has paid."""
    return any(FREE in note for note in seen.again.notes)


def _answered(seen: Seen, count: float) -> tuple[Result, list[str]]:
    answered = sorted(name for name, status in seen.said.silos.items() if status == "answered")
    others = set(SILOS) - set(answered)
    wrong = [
        f"{name} charged {seen.charged[name]:g} times for its answer" for name in answered if seen.charged[name] != 1
    ]
    if len(others) > MAX_MISSING or (others - {CEDAR} and seen.case.fault.party != "aggregator"):
        wrong.append(f"the answer lacks {', '.join(sorted(others))}")
    right = sum(seen.counts[name] for name in answered)
    if abs(count - right) <= seen.slack:
        return ("without" if others else "answer"), wrong
    fails = seen.case.fault.kind in FAILS_IN_SILENCE and NOISE in seen.owner_log
    if fails and CEDAR in answered and abs(count - right + seen.counts[CEDAR]) <= seen.slack:
        return "noise", wrong
    return "answer", [*wrong, f"the answer is {count:g}, not {right}"]


def _unanswered(seen: Seen) -> tuple[Result, list[str]]:
    said, wrong = seen.said, list[str]()
    if said.status is not None:
        if not any(re.search(one, said.error) for one in CLEAR):
            wrong.append("the error is not clear")
        if not said.hint:
            wrong.append("the error has no remedy")
    if is_free(seen) and seen.again.count is not None:
        return "again", wrong
    if not any(seen.charged.values()):
        return "error", wrong
    if said.status is not None and not STANDS.search(said.text):
        wrong.append(f"charged without an answer, and nobody says so: {_charges(seen.charged)}")
    if seen.case.fault.party in ("silo", "second aggregator"):
        wrong.append(f"charged without an answer: {_charges(seen.charged)}")
    return "charged", wrong


def _budget(seen: Seen) -> list[str]:
    wrong = [f"{name} charged {times:g} times" for name, times in seen.charged.items() if times not in (0, 1)]
    for name, times in seen.charged_again.items():
        more = times - seen.charged[name]
        if (is_free(seen) and times > 1) or (not is_free(seen) and more > 1) or more < 0:
            wrong.append(f"{name} charged {seen.charged[name]:g} times, and {times:g} with the same command again")
    return wrong


def _wait(seen: Seen) -> list[str]:
    said, fault = seen.said, seen.case.fault
    if said.status is None:
        return []
    dead = fault.party == "silo" and not fault.kind.startswith(("link", "stopped"))
    most = ROUND_S if said.count is not None else DEAD_SILO_S if dead else SILENT_S
    wrong = [f"waited {said.waited_s:.0f} s, at most {most:g}"] if said.waited_s > most else []
    stopped = fault.party == "analyst" and fault.kind.startswith("stopped")
    if said.progress_s > PROGRESS_S and not stopped:
        wrong.append(f"nothing was shown for {said.progress_s:.1f} s")
    return wrong


def _last(seen: Seen) -> list[str]:
    """The same command again, after all is mended, has the answer of all that the free one can have."""
    again = seen.again
    if again.count is None:
        return [f"the next command has no answer: {again.text[:300]}"]
    if not is_free(seen) and any(again.silos.get(name) != "answered" for name in SILOS):
        return [f"the next answer lacks silos: {again.silos}"]
    if not is_free(seen) and abs(again.count - seen.truth) > seen.slack:
        return [f"the next answer is {again.count:g}, not {seen.truth}"]
    return []


def _charges(charged: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {times:g}" for name, times in charged.items() if times)
