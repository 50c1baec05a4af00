"""Make a release, or look for known faults of what it needs: `make release`, `make audit`.

`wheel` builds the wheel twice, refuses two that differ, and writes it with its hash and its bill of materials
(CycloneDX 1.6, from the lock file) into dist/. `audit` compares the lock file with published advisories, and says so
where none can be had.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"
AUDIT_S = 300


def built(place: Path) -> Path:
    """Build the wheel into a directory; its times are those of the last commit, so that all builds are the same."""
    shown = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=True)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": shown.stdout.strip()}
    command = [sys.executable, "-P", "-m", "hatchling", "build", "--target", "wheel", "--directory", str(place)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    return wheel


def wheel(into: Path) -> int:
    """Write the wheel, its hash and its bill of materials; return 1 if two builds differ."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        one, other = built(Path(first)), built(Path(second))
        digest = sha256(one.read_bytes()).hexdigest()
        if digest != sha256(other.read_bytes()).hexdigest():
            print("two builds of the wheel differ: nothing was written", file=sys.stderr)
            return 1
        into.mkdir(exist_ok=True)
        (into / one.name).write_bytes(one.read_bytes())
    (into / f"{one.name}.sha256").write_text(f"{digest}  {one.name}\n")
    bill = into / one.name.replace(".whl", ".cdx.json")
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", str(LOCK), "--pyproject", "pyproject.toml"]
    command += ["--spec-version", "1.6", "--output-reproducible", "--output-file", str(bill)]
    subprocess.run(command, cwd=ROOT, check=True)
    parts = json.loads(bill.read_text())["components"]
    print(f"{into / one.name}: sha256 {digest}, of two builds\n{bill}: {len(parts)} components")
    return 0


def audit() -> int:
    """Print the advisories for what the lock file names; return 1 if there are any."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--no-deps", "--disable-pip"]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", "15"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=AUDIT_S, check=False)
        found = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        print(f"skipped: no advisories within {AUDIT_S} s")
        return 0
    except ValueError:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        print(f"skipped: no advisories could be had: {said[-1][:300]}")
        return 0
    faults = [(one, fault) for one in found for fault in one.get("vulns", ())]
    for one, fault in faults:
        mended = ", ".join(fault["fix_versions"]) or "no version"
        print(f"{one['name']} {one['version']}: {fault['id']}, mended in {mended}")
    unknown = [one["skip_reason"] for one in found if "skip_reason" in one]
    if len(unknown) == len(found):
        print(f"skipped: {unknown[0] if unknown else 'the lock file names nothing'}")
        return 0
    print(f"{len(faults)} advisories for {len(found) - len(unknown)} packages; {len(unknown)} could not be looked up")
    return int(bool(faults))


def main() -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m tests.release", description=__doc__)
    parser.add_argument("command", choices=["audit", "wheel"])
    options = parser.parse_args()
    return audit() if options.command == "audit" else wheel(ROOT / "dist")


if __name__ == "__main__":
    raise SystemExit(main())
