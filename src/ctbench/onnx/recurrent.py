"""The translation of the recurrent operators RNN, GRU and LSTM, unrolled for the length of their input.

With x the input and h the state before a step, and for each gate g the sum s_g = W_g x + b_g + R_g h + c_g,

    RNN     h' = f(s)
    GRU     h' = (1 - z) n + z h         z = f(s_z), r = f(s_r), and n = g(W x + b + R (r h) + c)
                                         with linear_before_reset    n = g(W x + b + r (R h + c))
    LSTM    c' = f c + i n, h' = o h(c') i = f(s_i), o = f(s_o), f = f(s_f), n = g(s_c)

W, R, b and c hold their gates one after the other, in this order: z r n, and i o f c.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ctbench.onnx.building import Operator, TracedValue
from ctbench.onnx.operators import linear
from ctbench.onnx.table import reads

Function = Callable[[Tensor], Tensor]
State = tuple[TracedValue, ...]  # h [B, N, hidden], and for an LSTM c

_FUNCTIONS: dict[str, Function] = {"Tanh": torch.tanh, "Sigmoid": torch.sigmoid, "Relu": torch.relu}
_DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


@reads("RNN", "GRU", "LSTM")
def _recurrent(op: Operator) -> list[TracedValue]:
    """All states, the last ones, and the last cells of an LSTM."""
    x, batch_first = op.value(), bool(op.attribute("layout", 0))
    has_batch = len(x.shape) == 3  # of the torch network: otherwise that of the file, N, is an ordinary axis
    if has_batch and not batch_first:
        raise op.across("its batch is axis 1, and axis 0 are the steps")
    _check(op)
    if batch_first:
        x = op.call(torch.unsqueeze, x, 2) if has_batch else op.call(torch.transpose, x, 1, 2)
    steps = x.shape[1]
    directions = {"forward": [1], "reverse": [-1], "bidirectional": [1, -1]}[op.attribute("direction", "forward")]
    if op.argument(4) is not None and any(length != steps for length in op.setting("sequence_lens", 4)):
        raise op.error(f"sequence_lens that are not {steps} for all samples are not supported")
    sides, lasts = list[list[TracedValue]](), list[State]()
    for place, direction in enumerate(directions):
        state, step = _start(op, x, place), _Step.of(op, x, place, len(directions))
        states = list[TracedValue]()
        for number in range(steps)[::direction]:
            state = step(number, state)
            states.append(state[0])
        sides.append(states[::direction])
        lasts.append(state)
    rows = [op.call(torch.stack, [side[number] for side in sides], 1) for number in range(steps)]
    results = [op.call(torch.stack, rows, 1)]  # [B, steps, directions, N, hidden]
    results += [op.call(torch.stack, list(parts), 1) for parts in zip(*lasts, strict=True)]
    if not batch_first:
        return results
    if has_batch:
        return [op.call(torch.squeeze, each, len(each.example.shape) - 2) for each in results]
    moved = [op.call(torch.permute, results[0], [0, 3, 1, 2, 4])]
    return moved + [op.call(torch.transpose, each, 1, 2) for each in results[1:]]


def _check(op: Operator) -> None:
    """Raise OnnxError for options that change the computation in other ways."""
    odd = [name for name in ("clip", "activation_alpha", "activation_beta", "input_forget") if op.attribute(name)]
    if odd:
        raise op.error(f"{odd[0]}={op.attribute(odd[0])} is not supported: export without it")
    if op.kind == "LSTM" and op.argument(7) is not None and bool(op.weight(7).any()):
        raise op.error("peepholes (its input 7) are not supported: export an LSTM without them")


def _functions(op: Operator, place: int, count: int) -> list[Function]:
    """The activations of a direction."""
    names = list(op.attribute("activations", [])) or _DEFAULTS[op.kind] * count
    names = [name.decode() if isinstance(name, bytes) else name for name in names]
    size = len(_DEFAULTS[op.kind])
    own = names[place * size : (place + 1) * size]
    unknown = [name for name in own if name not in _FUNCTIONS]
    if unknown:
        raise op.error(f"the activation {unknown[0]} is not supported: use {', '.join(_FUNCTIONS)}")
    return [_FUNCTIONS[name] for name in own]


def _start(op: Operator, x: TracedValue, place: int) -> State:
    """The states before the first step: zeros, unless the file gives them."""

    def one(index: int) -> TracedValue:
        initial = op.argument(index)
        at = (slice(None), slice(None), place) if op.attribute("layout", 0) else (slice(None), place)
        if isinstance(initial, TracedValue):
            return op.call(operator.getitem, initial, at)
        first = op.at(x, 1, 0)  # [B, N, features]
        zeros = op.call(F.pad, first, (hidden, -first.shape[-1]))
        if initial is None:
            return zeros
        return op.call(torch.add, zeros, op.buffer(index, op.weight(index)[at[1:]].clone()))

    hidden = op.attribute("hidden_size") or op.weight(2).shape[-1]
    return (one(5), one(6)) if op.kind == "LSTM" else (one(5),)


@dataclass(frozen=True)
class _Step:
    """One step of a direction."""

    op: Operator
    mine: TracedValue  # W x + b for all steps, [B, steps, N, gates hidden]
    hidden: int
    weights: tuple[Tensor, Tensor]  # R and c
    functions: Sequence[Function]
    layers: dict[str, str]  # the paths of layers that are used again

    @classmethod
    def of(cls, op: Operator, x: TracedValue, place: int, count: int) -> _Step:
        w, r = op.weight(1)[place], op.weight(2)[place]
        biases = torch.zeros(2 * len(w)).to(w) if op.argument(3) is None else op.weight(3)[place]
        mine, theirs = biases.chunk(2)
        rows = op.layer(linear(w, mine.clone()), x)
        return cls(op, rows, r.shape[1], (r, theirs), _functions(op, place, count), {})

    def __call__(self, number: int, state: State) -> State:
        row = self.op.at(self.mine, 1, number)
        if self.op.kind == "LSTM":
            return self._lstm(row, *state)
        return (self._gru if self.op.kind == "GRU" else self._rnn)(row, *state)

    def _rnn(self, row: TracedValue, h: TracedValue) -> State:
        return (self.op.call(self.functions[0], self._add(row, self._layer("all", slice(None), h))),)

    def _gru(self, row: TracedValue, h: TracedValue) -> State:
        size, (f, g) = self.hidden, self.functions
        gates = self._layer("gates", slice(0, 2 * size), h)
        update, reset = (
            self.op.call(f, self._add(*(self._gate(each, number) for each in (row, gates)))) for number in (0, 1)
        )
        last = slice(2 * size, None)
        if self.op.attribute("linear_before_reset", 0):
            theirs = self._multiply(reset, self._layer("new", last, h))
        else:
            theirs = self._layer("new", last, self._multiply(reset, h))
        new = self.op.call(g, self._add(self._gate(row, 2), theirs))
        return (self._add(new, self._multiply(update, self.op.call(torch.sub, h, new))),)

    def _lstm(self, row: TracedValue, h: TracedValue, c: TracedValue) -> State:
        f, g, out = self.functions
        total = self._add(row, self._layer("all", slice(None), h))
        take, show, forget = (self.op.call(f, self._gate(total, number)) for number in range(3))
        new = self.op.call(g, self._gate(total, 3))
        c = self._add(self._multiply(forget, c), self._multiply(take, new))
        return self._multiply(show, self.op.call(out, c)), c

    def _add(self, first: TracedValue, second: TracedValue) -> TracedValue:
        return self.op.call(torch.add, first, second)

    def _multiply(self, first: TracedValue, second: TracedValue) -> TracedValue:
        return self.op.call(torch.mul, first, second)

    def _gate(self, x: TracedValue, number: int) -> TracedValue:
        return self.op.at(x, 2, slice(number * self.hidden, (number + 1) * self.hidden))

    def _layer(self, name: str, rows: slice, x: TracedValue) -> TracedValue:
        """R h + c for some rows; all steps share the layer."""
        if name in self.layers:
            return self.op.building.again(self.layers[name], x)
        weight, bias = (each[rows].clone() for each in self.weights)
        result = self.op.layer(linear(weight, bias), x)
        self.layers[name] = str(result.node.target)
        return result
