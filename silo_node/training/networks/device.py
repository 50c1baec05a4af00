"""The device that networks are computed on: the CPU, or a CUDA device where torch finds one.

`[compute] device` of a policy says which. Results of two devices are equal within float tolerance, not to the last bit.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from silo_node.errors import SiloError

DeviceName = Literal["cpu", "cuda", "auto"]
_CPU = torch.device("cpu")
_CHOSEN: ContextVar[torch.device] = ContextVar("device", default=_CPU)


def chosen(name: DeviceName) -> torch.device:
    """Return the device of a name; raises SiloError where a policy says "cuda" and torch finds none."""
    has_one = name != "cpu" and torch.cuda.is_available()
    if name == "cuda" and not has_one:
        raise SiloError('[compute] device = "cuda", and torch finds no CUDA device', 'take device = "auto" or "cpu"')
    return torch.device("cuda") if has_one else _CPU


@contextmanager
def on(name: DeviceName, threads: int | None = None) -> Iterator[torch.device]:
    """Compute on the device of a name, on so many threads of the CPU, until the block ends."""
    found = chosen(name)
    if threads is not None and threads != torch.get_num_threads():
        torch.set_num_threads(threads)
    token = _CHOSEN.set(found)
    try:
        yield found
    finally:
        _CHOSEN.reset(token)


def current() -> torch.device:
    """Return the device that is computed on."""
    return _CHOSEN.get()


def to_device(array: npt.NDArray[Any]) -> torch.Tensor:
    """Return an array as a tensor on the device that is computed on; on the CPU it may share the array's memory."""
    own = np.ascontiguousarray(array)
    return torch.from_numpy(own if own.flags.writeable else own.copy()).to(current())


def to_array(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """Return a tensor of any device as an array."""
    found: npt.NDArray[Any] = tensor.detach().cpu().numpy()
    return found
