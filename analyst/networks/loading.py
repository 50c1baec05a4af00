"""Make the module that an analyst's file has: the one place that runs her code, on her own machine."""

import importlib.util
import json
import sys
import traceback
from pathlib import Path
from typing import Any

from torch import nn

from analyst.networks.refused import PackError


def made(file: Path, name: str, arguments: str) -> nn.Module:
    """Return what `name` of a file makes of arguments in JSON, a module; raises PackError, which names the line."""
    try:
        given = json.loads(arguments) if arguments else {}
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise PackError(f"--args {arguments!r} is no object in JSON", """write --args '{"hidden": 32}'""")
    if not file.is_file():
        raise PackError(f"there is no {file}", "name a Python file, and what it has: net.py:Net")
    found = _found(file, name)
    try:
        module = found if isinstance(found, nn.Module) else found(**given)
    except Exception as err:
        raise PackError(f"{line_of(err, file)}{name} cannot be made: {err}", "give its arguments with --args") from err
    if not isinstance(module, nn.Module):
        raise PackError(f"{file.name}: {name} makes no torch.nn.Module", "name a class or a function that makes one")
    return module


def line_of(err: BaseException, file: Path) -> str:
    """Return the last line of a file that led to an error, as `net.py:3: `; the file alone if none did."""
    lines = [
        frame.lineno for frame in traceback.extract_tb(err.__traceback__) if Path(frame.filename).name == file.name
    ]
    return f"{file.name}:{lines[-1]}: " if lines else f"{file.name}: "


def _found(file: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location("consilo_packed_network", file)
    if spec is None or spec.loader is None:
        raise PackError(f"{file} is no Python file", "name a Python file, and what it has: net.py:Net")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.resolve().parent))  # it may import what lies beside it
    try:
        spec.loader.exec_module(module)
    except Exception as err:
        raise PackError(f"{line_of(err, file)}{type(err).__name__}: {err}", "run the file by itself first") from err
    finally:
        sys.path.pop(0)
    if not hasattr(module, name):
        raise PackError(f"{file.name} has no {name}", "name a class, a function or a module that it has: net.py:Net")
    return getattr(module, name)
