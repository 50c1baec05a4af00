"""A silo's answer on 10^8 prepared rows of 10^7 persons, in one process, and spread over two raylets of one processor.

Run: python -m tests.bench.rows_large
"""

from silo_node.data import answer
from silo_node.data.prepared.reader import PARTITION_ROWS
from silo_node.spread import spread
from tests.bench.figures import publish
from tests.bench.rows import PURPOSE, Bench, Rows, bench_of, cpu_ms, written
from tests.harness.example_policy import NOW
from tests.harness.raylets import two_raylets, used_s

SIZE = Rows(100_000_000, 10_000_000)
RUNS = 3


def main() -> None:
    with written(SIZE) as home, bench_of(home, SIZE, 20) as bench:
        answered, plain = bench.pairs(lambda: bench.answer(PURPOSE), 3)
        publish("group_by_1e8", answered, "ms", "the same figures by DuckDB alone", plain)
        _spread(bench)


def _spread(bench: Bench) -> None:
    """Compare the processor time of two raylets, each with one processor, with that of one process."""
    question, snapshot = bench.reader.asked(bench.asked(PURPOSE), NOW)
    is_in = bench.reader.judged(snapshot, "visits", PURPOSE, NOW, 600)
    parts = list(snapshot.parts(PARTITION_ROWS))

    def alone() -> None:
        opened = question.snapshot
        answer.added(question.part(first, end, is_in, opened) for first, end in parts)

    alone()
    one = [cpu_ms(alone) / 1000 for _ in range(RUNS)]
    greatest, sums = [], []
    with two_raylets() as (_, nodes):
        spread(question, parts, is_in, 600)  # both have started their processes
        for _ in range(RUNS):
            before = [used_s(node) for node in nodes]
            spread(question, parts, is_in, 600)
            used = [used_s(node) - earlier for node, earlier in zip(nodes, before, strict=True)]
            greatest.append(max(used))
            sums.append(sum(used))
    baseline = "the same parts in one process"
    publish("spread_1e8_greatest_of_two_raylets", greatest, "s", baseline, one, "ratio 0.6")
    publish("spread_1e8_sum", sums, "s", baseline, one, "ratio 1.25")


if __name__ == "__main__":
    main()
