"""No code of an analyst runs at a silo: nothing on its path unpickles, evaluates, or imports by a name that is data.

A program that torch.export saved runs code where it is opened: torch reads its sizes with sympy, which evaluates text.
So neither stands on the path of a silo or of what it stands on. Packing stands in `analyst/`, on her own machine.
"""

import ast
from collections.abc import Iterator

import pytest

from tests.structure.test_structure import trees

pytestmark = pytest.mark.slow

SILO_PATH = ("silo_node", "policies", "federation", "crypto", "aggregator")
MODULES = (
    *("pickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "sympy", "runpy", "imp", "code"),
    *("torch.export", "torch._export", "torch.jit", "torch.package", "torch.hub", "torch.serialization", "torch.fx"),
    *(
        "torch.utils.cpp_extension",
        "torch.compiler",
        "torch._dynamo",
        "torch._inductor",
        "torch.onnx",
        "importlib.util",
    ),
)
OF_TORCH = frozenset(
    {"load", "export", "jit", "package", "hub", "compile", "serialization", "onnx", "fx", "classes", "ops"}
)
BUILT_IN = frozenset({"eval", "exec", "compile", "__import__", "breakpoint"})
BY_NAME = frozenset({"import_module", "__import__", "load_module", "exec_module", "find_class", "resolve_name"})


def dotted(node: ast.AST) -> str:
    """Return an attribute of names as text, such as torch.export.load; empty for anything else."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def runs_code(tree: ast.AST) -> Iterator[str]:
    """Yield every import and call that would run code which is data, or open a file that can."""
    for node in ast.walk(tree):
        found: set[str] = set()
        match node:
            case ast.Import(names=aliases):
                found = {one.name for one in aliases if is_in(one.name, MODULES)}
            case ast.ImportFrom(module=str(module), names=aliases):
                whole = {f"{module}.{one.name}" for one in aliases}
                found = {one for one in whole if is_in(one, MODULES) or is_of_torch(one)}
            case ast.Attribute():
                found = {name} if is_of_torch(name := dotted(node)) else set()
            case ast.Call(func=ast.Name(id=name)) if name in BUILT_IN:
                found = {name}
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=arguments) if name in BY_NAME:
                found = set() if all(isinstance(one, ast.Constant) for one in arguments) else {name}
            case ast.Call(func=ast.Attribute(attr="load" | "loads"), keywords=keywords):
                picks = [one.value for one in keywords if one.arg == "allow_pickle"]
                found = {"allow_pickle" for one in picks if not is_false(one)}
            case ast.Call(func=ast.Name(id="getattr"), args=[ast.Name(id="torch" | "functional"), *_]):
                found = {"getattr of torch"}
            case _:
                continue
        yield from (f"{getattr(node, 'lineno', '?')}: {one}" for one in sorted(found))


def is_false(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def is_in(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in modules)


def is_of_torch(name: str) -> bool:
    parts = name.split(".")
    return parts[0] == "torch" and len(parts) > 1 and parts[1] in OF_TORCH


def test_nothing_on_the_path_of_a_silo_runs_code_that_is_data() -> None:
    found = [f"{path}:{place}" for path, tree in trees(*SILO_PATH) for place in runs_code(tree)]
    assert not found, "a silo computes listed calls, and no code of anybody else"


def test_torch_export_stands_on_the_analysts_side_alone() -> None:
    exporting = [path for path, tree in trees("analyst") if any("torch.export" in place for place in runs_code(tree))]
    assert exporting
    assert all(path.startswith("analyst/networks/") for path in exporting)


def test_these_rules_find_what_breaks_them() -> None:
    for broken in (
        "import pickle",
        "from pickle import loads",
        "import torch.export",
        "from torch import export",
        "from torch.export import load",
        "torch.load(path)",
        "torch.export.load(path)",
        "torch.jit.load(path)",
        "torch.ops.aten.linear(x)",
        "eval(text)",
        "exec(text)",
        "__import__(name)",
        "importlib.import_module(name)",
        "import sympy",
        "np.load(path, allow_pickle=True)",
        "getattr(torch, call.call)",
        "getattr(functional, name)(x)",
    ):
        assert list(runs_code(ast.parse(broken))), broken
    for allowed in (
        "import torch",
        "torch.relu(x)",
        "json.loads(text)",
        "re.compile(x)",
        "model.eval_rows()",
        "np.load(x)",
    ):
        assert not list(runs_code(ast.parse(allowed))), allowed
