"""A graph as it is written: calls one after the other, and where the tensors of the module are in them."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from analyst.networks.layout import Laid
from policies.errors import reason_of
from policies.networks.calls import AnyCall, Call
from policies.networks.values import Shape, Tensor

_LEAST, _MOST = 1e-7, 1e9  # of a number of a call, whose digits a message holds
_CALL: TypeAdapter[Call] = TypeAdapter(AnyCall)


class WritingError(ValueError):
    """Something that no listed call computes; says what, and in `hint` what to use."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Trained:
    """A weight of the module, as it stands."""

    name: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class Places:
    """The first rows of a table, one for each place: what an embedding of 0, 1, 2, ... gives."""

    weight: Trained
    count: int


@dataclass(frozen=True, slots=True)
class Zeros:
    """Zeros for each row of a batch: with these a recurrent layer begins."""


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Several results of one call of torch; each becomes a call of its own where something reads it."""

    of: tuple["Value | None", ...]


Value = Laid | Trained | Places | Zeros | Parts | torch.Tensor  # a tensor: the same for all rows, and never trained


class Writer:
    """Writes the calls of a graph."""

    def __init__(self, known: Mapping[str, Tensor]) -> None:
        self.known = dict(known)
        self.calls: list[Call] = []
        self.constants: dict[str, torch.Tensor] = {}
        self._laid_out: dict[tuple[str, Shape, tuple[int, ...], Shape], str] = {}

    def call(self, kind: str, name: str, of: str, /, **arguments: Any) -> tuple[str, Shape]:
        """Write a call; returns its name and the shape of its row. Raises WritingError where it does not fit."""
        free = self._free(name)
        try:
            written = _CALL.validate_python({"call": kind, "name": free, "of": of} | arguments)
            result = written.result(self.known)
        except ValidationError as err:
            key = ".".join(str(part) for part in err.errors()[0]["loc"][1:])
            raise WritingError(f"{key}: {reason_of(err)}" if key else reason_of(err)) from err
        except ValueError as err:
            raise WritingError(str(err)) from err
        self.known[free] = result
        self.calls.append(written)
        return free, result.shape

    def in_order(self, laid: Laid, row: Shape | None = None) -> str:
        """Return a node whose row has the numbers of a tensor in their order, as the shape `row`."""
        row, order = laid.row if row is None else row, laid.order
        key = laid.node, laid.pieces, order, row
        if key not in self._laid_out:
            self._laid_out[key] = self._ordered(laid, order, row)
        return self._laid_out[key]

    def constant(self, name: str, tensor: torch.Tensor) -> str:
        """Return the name of numbers that stay as they are; raises WritingError if they are NaN or infinite."""
        if not torch.isfinite(tensor).all():
            hint = "give attention is_causal=True in the place of a mask of infinite numbers"
            raise WritingError("a constant has numbers that are NaN or infinite", hint)
        for known, other in self.constants.items():
            if torch.equal(other, tensor):
                return known
        free = self._free(name)
        self.constants[free] = tensor
        self.known[free] = Tensor(tuple(tensor.shape))
        return free

    def _ordered(self, laid: Laid, order: tuple[int, ...], row: Shape) -> str:
        node, shape = laid.node, laid.shape
        if order != tuple(range(len(order))):
            if shape != laid.pieces:
                node, _ = self.call("reshape", f"{laid.node}_view", node, shape=laid.pieces)
            node, shape = self.call("permute", f"{laid.node}_order", node, axes=order)
        if shape != row:
            kind = "flatten" if len(row) == 1 else "reshape"
            node, _ = self.call(kind, f"{laid.node}_{kind}", node, **({} if len(row) == 1 else {"shape": row}))
        return node

    def _free(self, name: str) -> str:
        """Return a name that nothing has yet."""
        found, number = name, 0
        while found in self.known:
            number += 1
            found = f"{name}_{number}"
        return found


def decimal(number: float) -> str:
    """Return a number as the plain decimal that gives it again, to the last bit; raises WritingError if none does."""
    if not isfinite(number) or (number and not _LEAST <= abs(number) < _MOST):
        raise WritingError(f"the number {number}", f"use numbers from {_LEAST:g} up to {_MOST:g}, or 0")
    text = format(Decimal(repr(float(number))), "f")
    text = (text.rstrip("0").rstrip(".") if "." in text else text) or "0"
    return "0" if text == "-0" else text
