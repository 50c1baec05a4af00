"""Run benchmarks and write their figures into the docs: `python -m tests.bench [NAME ...]`, or `make bench`.

The pages hold a place for every module of this folder; what stands between its two marks is replaced, and what follows
from it on the page is computed anew.
"""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.bench.figures import ROOT, commit
from tests.bench.saturation import computed

PAGES = (ROOT / "docs" / "performance.md", ROOT / "docs" / "scale.md")
FOLDER = Path(__file__).parent
TIMEOUT_S = 3600


def main() -> None:
    """Run the named benchmarks, or all but the large ones; stops at the first that fails."""
    places = {name: page for page in PAGES for name in re.findall(r"<!-- figures: ([a-z_]+) -->", page.read_text())}
    for name in sys.argv[1:] or [one for one in places if not one.endswith("_large")]:
        if name not in places:
            sys.exit(f"no benchmark {name!r}, expected one of {', '.join(places)}")
        print(f"{name} ...", flush=True)
        command = [sys.executable, "-m", f"tests.bench.{name}"]
        output = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, check=True, timeout=TIMEOUT_S)
        figures = [json.loads(line) for line in output.stdout.splitlines() if line.startswith("{")]
        before, mark, after = places[name].read_text().partition(f"<!-- figures: {name} -->\n")
        _, end, rest = after.partition("<!-- end -->")
        places[name].write_text(computed(before + mark + table(figures) + end + rest))


def table(figures: list[dict[str, Any]]) -> str:
    """Return the figures as a table, under a line that says where and when they were measured."""
    lines = [
        f"Measured at commit {commit()} on {machine()}; medians.",
        "",
        "| figure | value | ratio | baseline | aim | runs | spread |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in figures:
        ratio = "" if one["ratio"] is None else f"{one['ratio']:.2f}"
        cells = [f"`{one['figure']}`", f"{number(one['value'])} {one['unit']}", ratio, one["baseline"] or ""]
        aim = one["aim"] or ""
        cells += [
            aim if not aim or aim.startswith("at least") else f"at most {aim}",
            str(one["runs"]),
            number(one["spread"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """Return a figure with four digits, or with all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def machine() -> str:
    """Return what the figures were measured on."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    processor = model[1] if model else "an unknown processor"
    return f"{os.cpu_count()} cores of {processor}, {memory:.0f} GiB, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
