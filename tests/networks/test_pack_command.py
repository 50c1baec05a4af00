"""`consilo model pack`: what it prints and writes, and each refusal in one line with a hint."""

from pathlib import Path

import pytest

from analyst.cli.main import main
from policies.networks.packed import decoded

pytestmark = pytest.mark.torch
FILE = Path(__file__).with_name("modules.py")


def test_a_module_is_packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "net.consilo"
    assert main(["model", "pack", f"{FILE}:CNN", "--input", "1x8x8", "--out", str(out)]) == 0
    network = decoded(out.read_bytes())
    told = capsys.readouterr().out
    assert told.startswith(
        f"{out}: {len(out.read_bytes()):,} bytes, of them {len(network.graph.encode()):,} of the graph"
    )
    assert "  image: 1 x 8 x 8 of a row, reals\n" in told
    assert "convolution by windows of 3 x 3, 1 to 8 channels, 8 x 8 places" in told
    assert f'  graph = "{network.name}"\n' in told


def test_arguments_of_a_class_are_given_as_json(tmp_path: Path) -> None:
    out = tmp_path / "net.consilo"
    arguments = ["--input", "64", "--args", '{"hidden": 3}', "--out", str(out)]
    assert main(["model", "pack", f"{FILE}:MLP", *arguments]) == 0
    assert decoded(out.read_bytes()).graph.count == 64 * 3 + 3 + 3 * 10 + 10


@pytest.mark.parametrize(
    ("module", "shape", "error", "hint"),
    [
        (f"{FILE}:BatchNorm", "4", "modules.py:", "nn.GroupNorm"),
        (f"{FILE}:MLP", "4,4", "--input '4,4' is no shape of a row", "write 64"),
        (f"{FILE}:MLP", "63", "torch.export cannot trace it", "run the module by itself"),
        (f"{FILE}", "64", "names no module", "net.py:Net"),
        ("nowhere.py:Net", "64", "there is no nowhere.py", "net.py:Net"),
        (f"{FILE}:functional", "64", "functional cannot be made", "--args"),
    ],
)
def test_what_does_not_fit_is_one_line_of_error_and_one_of_hint(
    module: str, shape: str, error: str, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "net.consilo"
    assert main(["model", "pack", module, "--input", shape, "--out", str(out)]) == 1
    first, second, *more = capsys.readouterr().err.splitlines()
    assert first.startswith("consilo: error: ")
    assert error in first
    assert second.startswith("consilo: hint: ")
    assert hint in second
    assert not more
    assert not out.exists()
