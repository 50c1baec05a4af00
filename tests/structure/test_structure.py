"""Code as syntax trees: who asks which kind a computation is, circles of imports, sizes, and who reaches into what.

The one test that reads modules as text. import-linter holds the floors (`pyproject.toml`).
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from policies.requests.computations import COMPUTATIONS

pytestmark = pytest.mark.slow  # seconds in all: `make check` runs it

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
    "silo_node/data/answer.py",
    "silo_node/training/",
    "analyst/reports/estimates.py",
    "analyst/training/",
    *sorted({one.__module__.replace(".", "/") + ".py" for one in COMPUTATIONS.values()}),
)
# Private names of other people's code, where that has no public one.
FOREIGN = {
    "ray._private",  # what Ray keeps of its settings
    "grpc._cython",  # what gRPC tells of its connections; its own package for that asks the same functions
    "_exit",  # os: ends a child without its parent's clean-up
    "_run_exitfuncs",  # atexit: what was to be done at the end
    "_actions",  # argparse: the options of a parser
    "_SubParsersAction",
    "_randbelow",  # random
    "_rdp",  # dp_accounting: the curve of an accountant
}
INSIDE = ("tests/harness/inside.py", "tests/harness/seal.py")  # the two files that reach in for all tests
# A read of the owner's database that has no name outside, for what happens in its midst.
IN_MIDST = "tests/harness/postgres.py", "_rows"
BY_NAME = ("getattr", "setattr", "delattr", "hasattr", "patch")  # functions that are told an attribute as a string


def trees(*packages: str) -> Iterator[tuple[str, ast.Module]]:
    """Yield every file of the product, or of the packages that are named, by its path, parsed."""
    for package in packages or PACKAGES:
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


def is_private(name: str) -> bool:
    """Return whether one part of a dotted name is private."""
    return any(part.startswith("_") and not part.endswith("__") for part in name.split(".") if part != "_")


def reaches_in(tree: ast.AST) -> Iterator[str]:
    """Yield every private name of something else than `self` or `cls`: attributes, imports, names in strings."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls") | ast.Call(func=ast.Name(id="super"))):
                continue
            case ast.Attribute(attr=name):
                found = {name}
            case ast.ImportFrom(module=module, names=aliases):
                found = {module or "", *(one.name for one in aliases)}
            case ast.Import(names=aliases):
                found = {one.name for one in aliases}
            case ast.Call(func=ast.Name(id=function) | ast.Attribute(attr=function), args=arguments):
                found = set().union(*map(strings, arguments)) if function in BY_NAME else set()
            case _:
                continue
        for name in sorted(found - FOREIGN):
            if is_private(name):
                yield f"{getattr(node, 'lineno', '?')}: {name}"


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


def test_nothing_reaches_into_another_module() -> None:
    found = [f"{path}:{place}" for path, tree in trees() for place in reaches_in(tree)]
    assert not found, "give it a public name, or use it where it is"


def test_tests_reach_in_by_their_harness_alone() -> None:
    found = [
        f"{path}:{place}"
        for path, tree in trees("tests")
        if path not in INSIDE
        for place in reaches_in(tree)
        if (path, place.rpartition(" ")[2]) != IN_MIDST
    ]
    assert not found, "test it by a public name, or add a noun to tests/harness/inside.py"


def test_no_other_test_reads_code_as_text() -> None:
    readers = {"ast", "inspect.getsource", "inspect.getsourcelines", "tokenize"}
    found = []
    for path, tree in trees("tests"):
        for node in ast.walk(tree):
            match node:
                case ast.Import(names=aliases):
                    read = {one.name for one in aliases} & readers
                case ast.ImportFrom(module=str(module), names=aliases):
                    read = {module, *(f"{module}.{one.name}" for one in aliases)} & readers
                case ast.Attribute(value=ast.Name(id=module), attr=name):
                    read = {f"{module}.{name}"} & readers
                case _:
                    continue
            found += [f"{path}:{node.lineno}: {one}" for one in sorted(read)]
    assert [one for one in found if not one.startswith("tests/structure/")] == []
    assert found


def test_every_program_that_is_started_as_a_module_is_safe_from_the_current_directory() -> None:
    """`python -m` imports from the current directory first, in which anybody may have left a file."""
    found = 0
    for path, tree in trees():
        for node in ast.walk(tree):
            words = [one.value for one in ast.iter_child_nodes(node) if isinstance(one, ast.Constant)]
            if isinstance(node, ast.List) and "-m" in words:
                found += 1
                assert words[:2] == ["-P", "-m"], f"{path}:{node.lineno}"
    assert found >= 8


def writes_through_links(tree: ast.AST) -> Iterator[str]:
    """Yield every call that writes into whatever lies under a name."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="write_text" | "write_bytes" | "copyfile" | "copy2" as name)):
                yield f"{node.lineno}: {name}"
            case ast.Call(func=ast.Attribute(value=ast.Name(id="shutil"), attr="copy")):
                yield f"{node.lineno}: shutil.copy"
            case ast.Call(func=ast.Attribute(attr="open") | ast.Name(id="open"), args=arguments):
                modes = {one for each in arguments for one in strings(each) if re.fullmatch("[wa][bt]?[+]?", one)}
                yield from (f"{node.lineno}: open {mode}" for mode in modes)
            case _:
                continue


def test_what_is_written_goes_through_no_link_that_somebody_planted() -> None:
    """`federation.files` writes: a new file takes the name, whatever lay there."""
    found = [f"{path}: {place.partition(' ')[2]}" for path, tree in trees() for place in writes_through_links(tree)]
    assert sorted(found) == [
        "aggregator/request_log.py: open ab",  # in a directory that nobody else can enter, with the opener's mode
        "analyst/cli/new.py: copyfile",  # rows of any size, into a directory that was made just now
        "federation/files.py: open wb",  # a device or a pipe
        "policies/document/schema.py: write_text",  # makes a file of the source
    ]


def test_every_test_that_the_security_review_names_exists() -> None:
    page, file, found = (ROOT / "docs/security-review.md").read_text(), "", 0
    for path, name in re.findall(r"(tests/[\w/]+\.py)?::(\w+)", page):
        file = path or file
        found += 1
        assert f"def {name}(" in (ROOT / file).read_text(), f"{file}::{name}"
    assert found >= 60


def definitions(path: Path) -> Iterator[str]:
    """Yield the classes and functions of a file, methods as Class.method."""
    pending: list[tuple[str, list[ast.stmt]]] = [("", ast.parse(path.read_text()).body)]
    for prefix, body in pending:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield prefix + node.name
                pending.append((f"{prefix}{node.name}.", node.body))


def test_every_path_and_function_of_the_architecture_exists() -> None:
    architecture = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`((?:\w+/)*\w+\.py|(?:\w+/)+)(?::\s+([\w.]+))?`", architecture)
    assert len(named) > 100
    missing = {name for name, _ in named if not (ROOT / name).exists()}
    for name, function in named:
        if function and name not in missing and function not in set(definitions(ROOT / name)):
            missing.add(f"{name}: {function}")
    for folder, files in re.findall(r"^\| `((?:\w+/)+)` \|[^|]*\| ([^|]*) \|$", architecture, re.M):
        missing |= {f"{folder}{name}.py" for name in files.split(", ") if not (ROOT / f"{folder}{name}.py").exists()}
    assert not missing, sorted(missing)


def test_every_function_among_the_checks_of_the_protocol_exists() -> None:
    """Section 8 names functions in the last column of its tables and in parentheses, by the end of the full name."""
    protocol = (ROOT / "docs" / "protocol.md").read_text()
    section = protocol.partition("\n## 8.")[2].partition("\n## 9.")[0]
    cells = re.findall(r"^\| [A-G]\d+[a-z]? \|.*\| ([^|]*) \|$|\((`[^)]*`)\)", section, re.M)
    named = {name for last, inside in cells for name in re.findall(r"`([\w.]+)`", last or inside)}
    assert len(named) > 40
    known = set()
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        module = path.relative_to(ROOT).as_posix().removesuffix(".py").replace("/", ".")
        known |= {module, *(f"{module}.{name}" for name in definitions(path))}
    assert not [name for name in sorted(named) if not any(f".{one}".endswith(f".{name}") for one in known)]


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
    for broken in (
        "silo._ledger",
        "self.silo._ledger",
        "from crypto.rounds.opening import _PASSED",
        "import crypto._inner",
        "monkeypatch.setattr(actor, '_catalogue', None)",
        "monkeypatch.setattr('silo_node.actor._owner_log', None)",
        "getattr(actor, '_rounds')",
    ):
        assert list(reaches_in(ast.parse(broken))), broken
    for allowed in (
        "self._silo",
        "super()._open()",
        "cls._made",
        "type(one).__name__",
        "os._exit(0)",
        "for _ in x: pass",
        "f('_dmarc')",
    ):
        assert not list(reaches_in(ast.parse(allowed))), allowed
    modules = {name: f"{name}.py" for name in ("a", "b", "c")}
    texts = {"a.py": "import b", "b.py": "def f():\n    from c import x", "c.py": "if TYPE_CHECKING:\n    import a"}
    graph = {path: imported(path, ast.parse(text), modules) for path, text in texts.items()}
    assert set(circle(graph)) == set(texts)
    assert not circle({**graph, "c.py": ()})
