"""Write a model to a file: JSON, which is its form, or ONNX."""

from typing import Literal

from policies.models.forms import Form

Format = Literal["json", "onnx"]
FORMATS: tuple[Format, ...] = ("json", "onnx")


def exported(model: Form, form: Format) -> bytes:
    """Return the file's bytes; raises ModelError where the format needs what is not installed, or would not agree."""
    if form == "json":
        return model.exported().encode()
    from policies.models.onnx_form import to_onnx  # onnx is an optional dependency

    return to_onnx(model)
