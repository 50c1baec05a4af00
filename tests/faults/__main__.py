"""Run the table of faults, what time tells, and the soak; write them into docs/faults.md.

`python -m tests.faults`, or `make faults`.

With words, only the cases whose name has one of them, and nothing is written. `--lanes` are processes at a time, each
with a federation of its own: most of a case is waiting.
"""

import argparse
import json
import logging
import queue
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from analyst.demo.hospitals import found_hospitals
from tests.bench.__main__ import machine
from tests.bench.figures import ROOT, commit
from tests.faults import soak, timing
from tests.faults.judge import Result, Verdict
from tests.faults.lane import GoneError, lane
from tests.faults.page import PAGE, put, table
from tests.faults.run import price_of, run
from tests.faults.served import served_lane
from tests.faults.table import CASES, Case

SECTIONS = {  # of policies, by the fault that needs two aggregators
    "dead, and none may be away": "max_unreachable = 0",
    "dead, and one may be away": "max_unreachable = 1\nmax_dishonest = 0",
}
LASTS_S = {"stopped": 60, "link cut 120 s": 120, "gone": 90, "certificate": 60, "link": 20}


@dataclass(frozen=True, slots=True)
class Work:
    """Cases for one kind of lane."""

    cases: tuple[Case, ...]
    section: str = ""
    is_served: bool = False


def works(cases: Sequence[Case], lanes: int) -> list[list[Work]]:
    """Return the work of each lane: cases of one kind of federation, those that last longest first."""
    plain = [one for one in cases if not one.fault.is_served and one.fault.kind not in SECTIONS]
    plain.sort(key=lambda one: -next((s for kind, s in LASTS_S.items() if one.fault.kind.startswith(kind)), 0))
    dealt = [[Work(tuple(plain[place::lanes]))] for place in range(lanes)]
    special = [
        Work(tuple(one for one in cases if one.fault.kind == kind), section) for kind, section in SECTIONS.items()
    ]
    special.append(Work(tuple(one for one in cases if one.fault.is_served), is_served=True))
    return [[work for work in lane if work.cases] for lane in (*dealt, special)]


def run_lane(place: Path, works: Sequence[Work], found: Path) -> None:
    """Run the work of one lane, in a new federation after a case that none came back from; write a line for each."""
    founded, made = place / "founded", 0
    place.mkdir(parents=True)
    found_hospitals(founded)
    for work in works:
        left = list(work.cases)
        while left:
            made += 1
            path = place / str(made)
            path.mkdir()
            try:
                opened = served_lane if work.is_served else lane
                with opened(path, founded, work.section) as one:
                    price = price_of(one)
                    while left:
                        keep(run(one, left[0], price), found)
                        del left[0]
            except (AssertionError, GoneError, OSError, ValueError, queue.Empty) as err:
                traceback.print_exc()
                reason = f"not judged: {type(err).__name__}: {err}"[:500]
                keep(Verdict(left.pop(0), "error", 0.0, (reason,)), found)


def keep(verdict: Verdict, found: Path) -> None:
    """Write a verdict as a line, and print it."""
    fields = [str(verdict.case), verdict.result, round(verdict.waited_s, 1), verdict.wrong, verdict.text]
    with found.open("a") as file:
        file.write(json.dumps(fields) + "\n")
    print(f"{verdict.waited_s:6.1f} s  {verdict.case}: {verdict.result} {'; '.join(verdict.wrong)}", flush=True)


def kept(found: Path) -> list[Verdict]:
    """Read the verdicts in the order of the table."""
    cases, verdicts = {str(one): one for one in CASES}, dict[str, Verdict]()
    for line in found.read_text().splitlines():
        name, result, waited_s, wrong, text = json.loads(line)
        known: Result = result
        verdicts[name] = Verdict(cases[name], known, waited_s, tuple(wrong), text)
    return [verdicts[name] for name in cases if name in verdicts]


def main() -> int:
    """Run; return 1 if a case is not met, or something is not flat."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--lanes", type=int, default=4)
    parser.add_argument("--found", type=Path, default=Path("faults.jsonl"), help="a line for each verdict")
    parser.add_argument("--only-lane", type=int, help="in this process, without a page")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    cases = [one for one in CASES if not options.words or any(word in str(one) for word in options.words)]
    dealt = works(cases, options.lanes)
    place = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        if options.only_lane is not None:
            run_lane(place / "lane", dealt[options.only_lane], options.found)
            return 0
        options.found.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tests.faults", *options.words, "--lanes", str(options.lanes)]
        command += ["--found", str(options.found), "--only-lane"]
        running = [subprocess.Popen([*command, str(number)], cwd=ROOT) for number, one in enumerate(dealt) if one]
        for process in running:
            process.wait()
        verdicts = kept(options.found)
        is_wrong = any(one.wrong for one in verdicts) or len(verdicts) < len(cases)
        if not options.words:
            computing, trial = timing.whole(place / "timing")
            is_wrong |= max(trial.aucs.values()) > timing.MOST_AUC or trial.miss_rate > timing.MOST_MISSED
            series = soak.whole(place / "soak")
            is_wrong |= not all(one.is_flat for one in series)
            where = f"Measured at commit {commit()} on {machine()}, {options.lanes + 1} federations at a time."
            put("faults", f"{where}\n\n{table(verdicts)}")
            put("timing", f"{where}\n\n{timing.table(computing, trial)}")
            put("soak", f"{where}\n\n{soak.table(series)}")
            print(f"written to {PAGE.relative_to(ROOT)}")
        return int(is_wrong)
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    raise SystemExit(main())
