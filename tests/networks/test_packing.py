"""A packed module is the module: its output and its training, to the last bit. What does not fit is refused by line."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from analyst.errors import AnalystError
from analyst.networks.inputs import input_form
from analyst.networks.loading import made
from analyst.networks.packing import packed_module
from analyst.networks.writing import WritingError, decimal
from policies.networks.graph import Graph
from policies.networks.packed import Packed, decoded, encoded
from policies.networks.words import described
from silo_node.training.networks.interpreter import computed
from tests.networks.samples import one

pytestmark = pytest.mark.torch
FILE = Path(__file__).with_name("modules.py")
EPOCHS, ROWS, BATCH = 6, 40, 8
# Of each module: what a row gives, how many bytes of JSON its graph has at most, and whether it trains to the last bit.
PACKED: Mapping[str, tuple[Sequence[str], int, bool]] = {
    "MLP": (("64",), 800, True),
    "CNN": (("1x8x8",), 1_800, True),
    "LSTM": (("10:int<50",), 1_300, True),
    "GRU": (("7x6",), 2_800, True),
    "LanguageModel": (("10:int<50",), 6_000, True),
    # Torch's own attention lays places before rows, so that its sums over rows have another order.
    "Encoder": (("10:int<50",), 8_000, False),
    "Recommender": (("int<30", "int<40"), 1_800, True),
    "Many": (("4x16",), 5_000, True),
    "Attended": (("6x8",), 6_000, False),
    "Texts": (("9:int<20",), 1_800, True),
    "Frames": (("5x8", "number", "number"), 1_800, True),
}
REFUSED = {
    "BatchNorm": ("batch norm takes means over the rows of a batch", "nn.GroupNorm"),
    "Branch": ("it branches on numbers of a row", "products and sums"),
    "InPlace": ("add_ writes in place", "x = x + y"),
    "InPlaceRelu": ("relu_ writes in place", "without inplace=True"),
    "Centred": ("mean: it computes over the rows of a batch", "first axis of an input is the batch"),
    "Gram": ("its product is over the rows of a batch", "first axis"),
    "Softmaxed": ("softmax: it computes over the rows of a batch", "first axis"),
    "FirstRow": ("select: it computes over the rows of a batch", "first axis"),
    "Rolled": ("aten.roll.default is not listed", "docs/networks.md"),
    "ByCount": ("it divides by a tensor", "multiply"),
    "Noisy": ("it draws numbers", "nn.Dropout"),
    "Sorted": ("aten.sort.default is not listed", "docs/networks.md"),
    "Custom": ("is an operator of its own, which no silo has", "docs/networks.md"),
}
REFUSED_AS_A_WHOLE = {
    "OverRows": ("it fixes the number of rows of a batch", "first axis"),
    "Cells": ("it reads the cells of an LSTM", "its states"),
    "NotANumber": ("the weight weight has a number that is NaN or infinite", "train it anew"),
    "TooWide": ("the weights have 25,000,000 numbers, most of them weight", "smaller"),
    "TooDear": ("conv2d (conv2d): a row takes", "smaller"),
    "Half": ("the weight weight is torch.float64", ".float()"),
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def module(name: str) -> nn.Module:
    torch.manual_seed(3)
    return made(FILE, name, "")


def packing(name: str) -> tuple[nn.Module, Packed]:
    found = module(name)
    return found, packed_module(found, [input_form(one) for one in PACKED[name][0]], FILE)


def drawn(name: str, rows: int = ROWS) -> list[torch.Tensor]:
    torch.manual_seed(4)
    forms = [input_form(one) for one in PACKED[name][0]]
    return [
        torch.randn(rows, *one.shape) if one.below is None else torch.randint(0, one.below, (rows, *one.shape))
        for one in forms
    ]


def inputs(graph: Graph, given: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    return {one.name: tensor for one, tensor in zip(graph.inputs, given, strict=True)}


@pytest.mark.parametrize("name", PACKED)
def test_a_packed_module_computes_and_trains_as_the_module(name: str) -> None:
    theirs, network = packing(name)
    graph, given = network.graph, drawn(name)
    weights = {key: torch.from_numpy(value.copy()) for key, value in network.weights.items()}
    constants = {one.name for one in graph.weights if one.initial == "constant"}
    leaves = [weights[key].requires_grad_() for key in weights if key not in constants]
    assert torch.equal(computed(graph, weights, inputs(graph, given)), theirs(*given))

    target = torch.randn_like(theirs(*given)).detach()
    own, other = (torch.optim.SGD(one, 0.01, momentum=0.9) for one in (leaves, list(theirs.parameters())))
    for _ in range(EPOCHS):
        for part in torch.randperm(ROWS).reshape(-1, BATCH):
            rows = [one[part] for one in given]
            for found, optimiser in (
                (computed(graph, weights, inputs(graph, rows), is_training=True), own),
                (theirs(*rows), other),
            ):
                optimiser.zero_grad()
                functional.mse_loss(found, target[part]).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
    named = dict(theirs.named_parameters(remove_duplicate=False))
    before = {key: torch.from_numpy(value) for key, value in network.weights.items()}
    for key in weights.keys() - constants:
        assert not torch.equal(weights[key], before[key]), key
        if PACKED[name][2]:
            assert torch.equal(weights[key], named[key]), key
        else:
            torch.testing.assert_close(weights[key], named[key], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", PACKED)
def test_a_packed_network_is_small_and_says_what_it_is(name: str) -> None:
    _, network = packing(name)
    found = decoded(encoded(network))
    assert found.graph == network.graph
    assert found.name == network.name
    assert found.weights.keys() == network.weights.keys()
    assert len(network.graph.encode()) <= PACKED[name][1]
    lines = described(network.graph)
    assert len(lines) == len(network.graph.inputs) + len(network.graph.calls) + 3
    assert all(line.isprintable() for line in lines)


def test_two_packings_of_one_module_are_the_same_file() -> None:
    assert encoded(packing("CNN")[1]) == encoded(packing("CNN")[1])


def test_what_a_module_does_not_train_stays_constant() -> None:
    _, network = packing("Encoder")
    assert {one.name for one in network.graph.weights if one.initial == "constant"} == {"add_1_constant"}
    assert sum(one.name.startswith("layers") for one in network.graph.weights) == 24
    _, tied = packing("LanguageModel")
    assert [one.shape for one in tied.graph.weights].count((50, 16)) == 1


def test_dropout_of_a_module_is_dropout_of_the_graph() -> None:
    torch.manual_seed(3)
    theirs = made(FILE, "Encoder", '{"dropout": 0.1}')
    network = packed_module(theirs, [input_form("10:int<50")], FILE)
    given = drawn("Encoder")
    weights = {key: torch.from_numpy(value) for key, value in network.weights.items()}
    calm = computed(network.graph, weights, inputs(network.graph, given))
    torch.testing.assert_close(calm, theirs.eval()(*given), rtol=1e-4, atol=1e-5)
    shares = [computed(network.graph, weights, inputs(network.graph, given), is_training=True) for _ in range(2)]
    assert not torch.equal(*shares)
    by_own = [
        computed(
            network.graph,
            weights,
            inputs(network.graph, given),
            is_training=True,
            generator=torch.Generator().manual_seed(1),
        )
        for _ in range(2)
    ]
    assert torch.equal(*by_own)


def line(name: str) -> int:
    """Return the line of a class that is refused."""
    lines = FILE.read_text().splitlines()
    first = next(at for at, text in enumerate(lines) if text.startswith(f"class {name}("))
    return next(at for at, text in enumerate(lines[first:], first + 1) if "# refused" in text)


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_by_node_and_line(name: str) -> None:
    message, hint = REFUSED[name]
    with pytest.raises(AnalystError) as caught:
        packed_module(module(name), [input_form("4")], FILE)
    assert caught.value.message.startswith(f"modules.py:{line(name)}: ")
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", REFUSED_AS_A_WHOLE)
def test_what_is_too_much_is_refused_by_name(name: str) -> None:
    message, hint = REFUSED_AS_A_WHOLE[name]
    with pytest.raises(AnalystError) as caught:
        packed_module(module(name), [input_form("4")], FILE)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_numbers_are_written_so_that_they_are_read_again_to_the_last_bit() -> None:
    for number in (0.1, 1e-7, 1 / 3, 2**0.5, 123456789.123, -0.0, 0.0, 1e-5, 999999999.9, -2.5, 5):
        text = decimal(number)
        assert float(text) == number
        assert scaled(text).count == 0
    for number in (float("nan"), float("inf"), 1e9, 1e-8):
        with pytest.raises(WritingError) as caught:
            decimal(number)
        assert caught.value.hint


def scaled(times: str) -> Graph:
    """Return a graph that has this number."""
    return one("scale", [3], times=times, over="1", plus="0")


def test_an_input_that_nothing_reads_is_refused() -> None:
    with pytest.raises(AnalystError, match=r"trace|nothing reads"):
        packed_module(module("MLP"), [input_form("64"), input_form("3")], FILE)


@pytest.mark.parametrize(
    "text", ["", "0", "4x", "x4", "4 4", "int", "int<0", "4int<3", "number:int<3", ":int<3", "1x" * 7 + "1"]
)
def test_an_input_that_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(AnalystError) as caught:
        input_form(text)
    assert caught.value.hint


def test_inputs_are_read() -> None:
    assert input_form("1x8x8").shape == (1, 8, 8)
    assert (input_form("20:int<1000").shape, input_form("20:int<1000").below) == ((20,), 1000)
    assert (input_form("int<7").shape, input_form("int<7").below) == ((), 7)
    assert (input_form("number").shape, input_form("number").below) == ((), None)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("Missing", "", "has no Missing"),
        ("MLP", "[1]", "is no object"),
        ("MLP", '{"depth": 3}', "MLP cannot be made"),
        ("own", "", "own cannot be made"),
        ("Path", "", "has no Path"),
    ],
)
def test_what_cannot_be_made_is_refused(name: str, arguments: str, message: str) -> None:
    with pytest.raises(AnalystError, match=message) as caught:
        made(FILE, name, arguments)
    assert caught.value.hint


def test_a_module_is_made_of_arguments() -> None:
    found = packed_module(made(FILE, "MLP", '{"hidden": 5}'), [input_form("64")], FILE)
    assert found.graph.count == 64 * 5 + 5 + 5 * 10 + 10
