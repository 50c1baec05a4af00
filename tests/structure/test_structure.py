"""The product's code as syntax trees: who asks which kind a computation is, circles of imports, sizes.

The one test that reads modules as text. import-linter holds the floors (`pyproject.toml`).
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from policies.requests.computations import COMPUTATIONS

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("silo_node", "aggregator", "analyst", "federation", "policies", "crypto")
MAX_CLASS_LINES = 300
MAX_FILE_LINES = 600
CLASSES = {"Computation", "TrainingStep", *(one.__name__ for one in COMPUTATIONS.values())}
KINDS = {*COMPUTATIONS, "training"}
# The computations themselves, and what stands beside each of them at a silo and at an analyst.
COMPUTATION_FILES = (
    "policies/requests/computations.py",
    "policies/requests/query.py",
    "policies/requests/training.py",
    "silo_node/data/query.py",
    "silo_node/training/",
    "analyst/reports/estimates.py",
    "analyst/training/",
    *sorted({one.__module__.replace(".", "/") + ".py" for one in COMPUTATIONS.values()}),
)


def trees() -> Iterator[tuple[str, ast.Module]]:
    """Yield every file of the product, by its path, parsed."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(), str(path))


def names(node: ast.AST) -> set[str]:
    """Return the last part of every name in an expression."""
    found = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    return found | {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)}


def strings(node: ast.AST) -> set[str]:
    """Return a string, or those of a list, tuple or set that is written out; none of any other expression."""
    parts = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]
    return {one.value for one in parts if isinstance(one, ast.Constant) and isinstance(one.value, str)}


def asks_the_kind(tree: ast.AST) -> Iterator[str]:
    """Yield every place that distinguishes computations: by class, by name of kind, or by `is_exact`."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, classes]):
                found = names(classes) & CLASSES
            case ast.MatchClass(cls=cls):
                found = names(cls) & CLASSES
            case ast.Compare(left=ast.Attribute(attr="command")):
                found = set()  # a command may be called like a kind
            case ast.Compare(left=left, comparators=others):
                found = set().union(*(strings(one) & KINDS for one in (left, *others)))
            case ast.MatchValue(value=value):
                found = strings(value) & KINDS
            case ast.Name(id="is_exact") | ast.Attribute(attr="is_exact") | ast.FunctionDef(name="is_exact"):
                found = {"is_exact"}
            case _:
                continue
        if found:
            yield f"{getattr(node, 'lineno', '?')}: {', '.join(sorted(found))}"


def imported(path: str, tree: ast.Module, modules: Mapping[str, str]) -> set[str]:
    """Return the product's files that a file imports, also in functions and for types alone."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {modules[one.name] for one in node.names if one.name in modules}
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.module in modules:
            inner = [f"{node.module}.{one.name}" for one in node.names]
            found |= {modules.get(name, modules[node.module]) for name in inner}
    return found - {path}


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Return files that import each other in a circle, from the first to the first again; none if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as err:
        found: list[str] = err.args[1]
        return found
    return []


def test_nobody_but_the_computations_asks_which_kind_one_is() -> None:
    found = [
        f"{path}:{place}"
        for path, tree in trees()
        if not path.startswith(COMPUTATION_FILES)
        for place in asks_the_kind(tree)
    ]
    assert not found, "ask the computation (policies/requests/computations.py), not its kind"


def test_no_files_import_each_other_in_a_circle() -> None:
    parsed = dict(trees())
    modules = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in parsed}
    graph = {path: imported(path, tree, modules) for path, tree in parsed.items()}
    assert sum(map(len, graph.values())) > 500
    assert not circle(graph)


def test_classes_and_files_are_small_enough_to_read() -> None:
    large = []
    for path, tree in trees():
        lines = len((ROOT / path).read_text().splitlines())
        if lines > MAX_FILE_LINES:
            large.append(f"{path}: {lines} lines")
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and (node.end_lineno or 0) - node.lineno >= MAX_CLASS_LINES:
                large.append(f"{path}: class {node.name} of {(node.end_lineno or 0) - node.lineno + 1} lines")
    assert not large


def test_these_rules_find_what_breaks_them() -> None:
    for broken in (
        "isinstance(request.plan, Plan)",
        "isinstance(plan, int | query.LogisticStep)",
        "plan.kind == 'query'",
        "plan.kind not in ('k-means', 'logistic-regression')",
        "'training' != kind",
        "step.is_exact",
        "match plan:\n    case TrainingStep(): pass",
        "match plan.kind:\n    case 'query': pass",
    ):
        assert list(asks_the_kind(ast.parse(broken))), broken
    for allowed in (
        "isinstance(node, exp.Plane)",
        "source.kind == 'csv'",
        "COMPUTATIONS[plan.kind]",
        "plan.training is None",
    ):
        assert not list(asks_the_kind(ast.parse(allowed))), allowed
    modules = {name: f"{name}.py" for name in ("a", "b", "c")}
    texts = {"a.py": "import b", "b.py": "def f():\n    from c import x", "c.py": "if TYPE_CHECKING:\n    import a"}
    graph = {path: imported(path, ast.parse(text), modules) for path, text in texts.items()}
    assert set(circle(graph)) == set(texts)
    assert not circle({**graph, "c.py": ()})
