"""Write a model to a file: JSON, which is its form, ONNX, or of a network safetensors."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

from policies.errors import ModelError
from policies.models.forms import Form
from policies.models.network import Network
from policies.models.scores import RowCells, Vector

Format = Literal["json", "onnx", "safetensors"]
FORMATS: tuple[Format, ...] = ("json", "onnx", "safetensors")
FORMATS_IN_WORDS = "JSON, ONNX (needs consilo[export]), or of a network safetensors (needs consilo[train])"


def exported(
    model: Form,
    form: Format,
    told: Mapping[str, str] = MappingProxyType({}),
    score: Callable[[RowCells], Vector] | None = None,
) -> bytes:
    """Return the file's bytes; raises ModelError where the format needs what is not installed, or would not agree.

    `told` is what a file of weights says of its run, `score` another way to score rows than by the form, with which an
    ONNX file is compared.
    """
    match form:
        case "json":
            return model.exported().encode()
        case "onnx":
            from policies.models.onnx_form import to_onnx  # onnx is an optional dependency

            return to_onnx(model, score)
        case "safetensors":
            if not isinstance(model, Network):
                raise ModelError(f"{model.model} is no network, and has no tensors", "take --format json or onnx")
            from policies.models.safetensors_form import to_safetensors

            return to_safetensors(model, told)
