"""How a benchmark measures and prints a figure: medians of several runs, ratios within one run."""

import json
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def commit() -> str:
    """Return the checked-out commit, with a plus sign where files differ from it."""
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True, capture_output=True)
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, text=True, capture_output=True)
    return (head.stdout.strip() or "unknown") + ("+" if changed.stdout.strip() else "")


def publish(
    figure: str,
    values: Sequence[float],
    unit: str,
    baseline: str | None = None,
    base: Sequence[float] | None = None,
    aim: str | None = None,
) -> dict[str, object]:
    """Print and return one figure: the median, its spread (max - min), and its ratio to a baseline of the same run.

    `aim` is what it must not exceed: a value, or "ratio" and a ratio; or "at least" and a value.
    """
    value = statistics.median(values)
    line = {
        "figure": figure,
        "value": float(f"{value:.6g}"),
        "unit": unit,
        "ratio": round(value / statistics.median(base), 3) if base else None,
        "baseline": baseline,
        "aim": aim,
        "runs": len(values),
        "spread": float(f"{max(values) - min(values):.6g}"),
        "commit": commit(),
    }
    print(json.dumps(line), flush=True)
    return line
