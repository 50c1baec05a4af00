"""Write a model of the linear families to a file: JSON, which is its portable form, or ONNX."""

from typing import Literal

from policies.models.portable import Portable

Format = Literal["json", "onnx"]
FORMATS: tuple[Format, ...] = ("json", "onnx")


def exported(model: Portable, form: Format) -> bytes:
    """Return the file's bytes; raises ModelError where the format needs what is not installed, or would not agree."""
    if form == "json":
        return model.exported().encode()
    from policies.models.onnx_form import to_onnx  # onnx is an optional dependency

    return to_onnx(model)
