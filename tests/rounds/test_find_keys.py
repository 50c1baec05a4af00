"""Keys that nobody has listed, across four clinics in memory: found by noised counts of prefixes, and nothing else."""

from pathlib import Path

from analyst.finding.search import Wanted, find_keys
from tests.harness.coded_visits import COLUMN, COMMON, COUNTS, PURPOSE, SILOS, TABLE, clinics

WANTED = Wanted(TABLE, COLUMN, PURPOSE, epsilon=20)


def test_without_noise_the_common_keys_are_found_with_their_counts(tmp_path: Path) -> None:
    with clinics(tmp_path / "f") as simulation:
        found = find_keys(simulation.federation, WANTED)
        assert {one.key: one.count for one in found.keys} == {key: sum(COUNTS[key]) for key in COMMON}
        for silo in SILOS:
            assert simulation.spent(silo) == 0
