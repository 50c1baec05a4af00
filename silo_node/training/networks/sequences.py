"""Recurrent layers and attention: torch's own where it has them, and the same by plain products under torch.func.

torch has no rule that maps its recurrent kernels and its fused attention over persons: of a GRU it fails, of an LSTM
it takes the persons one after the other. Hochreiter and Schmidhuber, Neural Computation 1997; Cho et al., EMNLP 2014;
Vaswani et al., NIPS 2017.
"""

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from policies.networks.calls import Attention, Recurrent

Drop = Callable[[torch.Tensor], torch.Tensor]


def is_transformed(*tensors: torch.Tensor) -> bool:
    """Tell whether torch.func computes gradients or batches of any of these."""
    return any(torch.func.debug_unwrap(one, recurse=False) is not one for one in tensors)


def ran(call: Recurrent, found: torch.Tensor, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return what a recurrent call gives: (rows, places, directions * size), or (rows, layers * directions, size)."""
    sequence, last = _looped(call, found, parts) if is_transformed(found, *parts) else _fused(call, found, parts)
    return sequence if call.gives == "sequence" else last


def attended(call: Attention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, drop: Drop) -> torch.Tensor:
    """Return attention by two products and a softmax."""
    scale = query.shape[-1] ** -0.5 if call.scale is None else float(call.scale)
    scores = torch.matmul(query * scale, key.transpose(-2, -1))
    if call.is_causal:
        behind = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(behind, float("-inf"))
    return torch.matmul(drop(torch.softmax(scores, -1)), value)


def _fused(call: Recurrent, found: torch.Tensor, parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    rows, count = found.shape[0], call.layers * call.directions
    zeros = torch.zeros(count, rows, call.size, dtype=found.dtype, device=found.device)
    # has_biases, layers, dropout, training, both directions, rows first
    how = call.has_bias, call.layers, 0.0, True, call.is_bidirectional, True
    if call.call == "lstm":
        sequence, last, _ = torch.lstm(found, (zeros, zeros), list(parts), *how)
    else:
        sequence, last = torch.gru(found, zeros, list(parts), *how)
    return sequence, last.transpose(0, 1)


def _looped(call: Recurrent, found: torch.Tensor, parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    each, step = 4 if call.has_bias else 2, _lstm_step if call.call == "lstm" else _gru_step
    last: list[torch.Tensor] = []
    for layer in range(call.layers):
        ways = []
        for way in range(call.directions):
            at = each * (layer * call.directions + way)
            states = _states(step, found, parts[at : at + each], is_backwards=way == 1)
            last.append(states[0 if way == 1 else -1])
            ways.append(torch.stack(states, 1))
        found = ways[0] if len(ways) == 1 else torch.cat(ways, -1)
    return found, torch.stack(last, 1)


Step = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def _states(
    step: Step, found: torch.Tensor, parts: Sequence[torch.Tensor], *, is_backwards: bool
) -> list[torch.Tensor]:
    """Return the state of one layer and direction at each place, in the order of the places.

    The gradient of a weight that every place uses would be one for each place and person, all held at once. So the
    places are run twice: first without gradients, which gives all states, and their one product with the weight has
    its gradient; and then with the weight as a constant, plus that product less itself, which is 0.
    """
    reads, recurs, *biases = parts
    given = functional.linear(found, reads, biases[0] if biases else None)
    places = list(range(found.shape[1]))[:: -1 if is_backwards else 1]
    fixed = [one.detach() for one in (recurs, *biases[1:])]
    with torch.no_grad():
        known = _run(step, given, fixed, places, None)
    first = found.new_zeros(found.shape[0], 1, recurs.shape[1])
    before = torch.cat([first, torch.stack([known[place] for place in places[:-1]], 1)], 1) if places[1:] else first
    product = functional.linear(before, recurs, biases[1] if biases else None)
    states = _run(step, given, fixed, places, product - product.detach())
    return [states[place] for place in range(len(places))]


def _run(
    step: Step,
    given: torch.Tensor,
    fixed: Sequence[torch.Tensor],
    places: Sequence[int],
    nothing: torch.Tensor | None,
) -> dict[int, torch.Tensor]:
    """Return the state at each place, from zeros; `nothing` is 0 and has the gradient of the weights."""
    state = given.new_zeros(given.shape[0], fixed[0].shape[1])
    read, nothings = given.unbind(1), None if nothing is None else nothing.unbind(1)
    cell, states = state, {}
    for at, place in enumerate(places):
        recurring = functional.linear(state, *fixed)
        if nothings is not None:
            recurring = recurring + nothings[at]
        state, cell = step(read[place], recurring, cell if step is _lstm_step else state)
        states[place] = state
    return states


def _lstm_step(given: torch.Tensor, recurring: torch.Tensor, cell: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    enter, forget, candidate, leave = (given + recurring).chunk(4, -1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(candidate)
    return torch.sigmoid(leave) * torch.tanh(cell), cell


def _gru_step(given: torch.Tensor, recurring: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    given_r, given_z, given_n = given.chunk(3, -1)
    recurring_r, recurring_z, recurring_n = recurring.chunk(3, -1)
    keep = torch.sigmoid(given_z + recurring_z)
    candidate = torch.tanh(given_n + torch.sigmoid(given_r + recurring_r) * recurring_n)
    state = candidate + keep * (state - candidate)
    return state, state
