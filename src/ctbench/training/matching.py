"""The weights of a file in a network whose layers have other names.

    load_weights(CNN7().build((3, 32, 32), 10), "cnn7.pt")

Names that agree decide, also after the prefixes of wrappers such as `DataParallel` are removed. Otherwise layers are
matched by shape and order: the n-th layer of a shape in the file is the n-th layer of that shape in the network. The
order of layers is that of the numbers in their names (`0` before `3`, `layers.1` before `layers.4`, `conv1` before
`conv2`). Where names leave the order open, or the shapes are not those of the network, nothing is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

PREFIXES = ("module.", "model.", "net.", "network.", "_orig_mod.")
# tensors that a network in eval mode does not use: counters, and what SABR's and TAPS's code keeps for training
COUNTER = "num_batches_tracked"
UNUSED = (COUNTER, "deepz_lambda", "current_mean", "current_var")
STATISTICS = ({"mean", "std"}, {"mean", "sigma"})  # the tensors of a layer that normalises its input

Tensors = Mapping[str, Tensor]
Signature = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Matching:
    """Which tensor of a file became which tensor of a network."""

    by: Literal["name", "order"]
    pairs: tuple[tuple[str, str], ...]  # the name in the file, and the name in the network
    unused: tuple[str, ...] = ()  # tensors of the file that a network in eval mode does not need
    kept: tuple[str, ...] = ()  # tensors of the network that the file does not have: counters, and the normalisation

    def __str__(self) -> str:
        if self.by == "name":
            return f"{len(self.pairs)} tensors were matched by name"
        places = {_place(theirs, ours) for theirs, ours in self.pairs}
        layers = ", ".join(
            f"{a or 'itself'} as {b or 'itself'}" for a, b in sorted(places, key=lambda at: _numbers(at[1]))
        )
        unused, kept = ([name for name in names if _leaf(name) != COUNTER] for names in (self.unused, self.kept))
        more = f"; not needed: {', '.join(unused)}" if unused else ""
        more += f"; not in the file: {', '.join(kept)}" if kept else ""
        return f"{len(self.pairs)} tensors were matched by shape and order: {layers}{more}"


def matched(tensors: Tensors, expected: Tensors) -> tuple[dict[str, Tensor], Matching]:
    """The state dict of a network from the tensors of a file, and how they were matched.

    Args:
        tensors: those of the file.
        expected: the state dict of the network.

    Raises:
        ValueError: the tensors are those of another network, or can be matched in several ways; lists both sides.
    """
    for names in (tensors, without_prefixes(tensors)):
        pairs = {name: name for name in names if name in expected or _leaf(name) not in UNUSED}
        missing = [name for name in expected if name not in pairs and _leaf(name) not in UNUSED]
        if pairs.keys() <= expected.keys() and not missing and _same_shapes(names, expected, pairs):
            kept = tuple(name for name in expected if name not in pairs)
            unused = tuple(name for name in names if name not in pairs)
            by_name = {name: names[name] for name in pairs} | {name: expected[name] for name in kept}
            return by_name, Matching("name", tuple(pairs.items()), unused, kept)
        if names.keys() == expected.keys():
            raise ValueError(differences(names, expected))
    return _by_order(tensors, expected)


def without_prefixes(tensors: Tensors) -> dict[str, Tensor]:
    """The tensors without the prefixes that all their names share, such as "module."."""
    names = dict(tensors)
    while names and (prefix := next((each for each in PREFIXES if all(name.startswith(each) for name in names)), "")):
        names = {name.removeprefix(prefix): tensor for name, tensor in names.items()}
    return names


def differences(tensors: Tensors, expected: Tensors) -> str:
    """How the names and shapes of a file differ from those of a network; "" where they agree."""
    missing, unexpected = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    differing = [
        f"{name} is {list(tensors[name].shape)}, the network's is {list(expected[name].shape)}"
        for name in expected.keys() & tensors.keys()
        if expected[name].shape != tensors[name].shape
    ]
    problems = [
        f"it lacks {', '.join(missing[:3])}{' ...' * (len(missing) > 3)}" if missing else "",
        f"it has {', '.join(unexpected[:3])}{' ...' * (len(unexpected) > 3)} too many" if unexpected else "",
        *sorted(differing)[:2],
    ]
    return "; ".join(problem for problem in problems if problem)


def _by_order(tensors: Tensors, expected: Tensors) -> tuple[dict[str, Tensor], Matching]:
    theirs, ours = _layers(tensors), _layers(expected)
    places, needed = _by_signature(theirs), _by_signature(ours)
    both = f"the file has {_listed(theirs)}; the network has {_listed(ours)}"
    counts = {signature: len(layers) for signature, layers in places.items()}
    if counts != {signature: len(layers) for signature, layers in needed.items()}:
        raise ValueError(f"{differences(tensors, expected)}; nor do the shapes of their layers agree: {both}")
    for names in places.values():
        if not _ordered(names):
            raise ValueError(
                f"the layers {', '.join(names)} have the same shapes, and their names leave their order open: {both}; "
                f"rename them in the order of the network"
            )
    layers = {a: b for signature, names in places.items() for a, b in zip(names, needed[signature], strict=True)}
    pairs = {f"{a}.{leaf}": f"{b}.{leaf}" for a, b in layers.items() for leaf in theirs[a]}
    state = {ours_name: tensors[name] for name, ours_name in pairs.items()}
    constants = _normalisation(tensors, expected)
    state |= {ours_name: _shaped(tensors[name], expected[ours_name]) for name, ours_name in constants.items()}
    pairs |= constants
    kept = tuple(name for name in expected if name not in state)
    unused = tuple(name for name in tensors if name not in pairs)
    return state | {name: expected[name] for name in kept}, Matching("order", tuple(pairs.items()), unused, kept)


def _normalisation(tensors: Tensors, expected: Tensors) -> dict[str, str]:
    """The constants of the file's normalisation, by name, and those of the network that they replace."""
    theirs, ours = _normalising(tensors), _normalising(expected)
    if len(theirs) > 1:
        raise ValueError(f"the file normalises in several places ({', '.join(theirs)})")
    if len(theirs) > len(ours):
        raise ValueError(
            f"the file normalises its inputs ({theirs[0]}), and the network does not: build it with a mean and std "
            f"(--normalize)"
        )
    return {
        name: f"{ours[0]}.{'mean' if leaf == 'mean' else 'std'}".lstrip(".")
        for layer in theirs
        for leaf in ("mean", "std", "sigma")
        if (name := f"{layer}.{leaf}".lstrip(".")) in tensors
    }


def _shaped(constant: Tensor, like: Tensor) -> Tensor:
    """A constant in the shape of the network's, per channel or one for all channels."""
    if constant.numel() not in (1, like.numel()):
        raise ValueError(f"the file normalises {constant.numel()} channels, the network {like.numel()}")
    return constant.reshape(-1, *[1] * (like.dim() - 1)).expand_as(like).clone()


def _normalising(tensors: Tensors) -> list[str]:
    """The layers that normalise their input."""
    leaves: dict[str, set[str]] = {}
    for name in tensors:
        layer, _, leaf = name.rpartition(".")
        leaves.setdefault(layer, set()).add(leaf)
    return [layer for layer, names in leaves.items() if names in STATISTICS]


def _layers(tensors: Tensors) -> dict[str, dict[str, Tensor]]:
    """The tensors of each layer that a network in eval mode uses, without those that normalise the input."""
    skipped = _normalising(tensors)
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        layer, _, leaf = name.rpartition(".")
        if leaf not in UNUSED and layer not in skipped:
            layers.setdefault(layer, {})[leaf] = tensor
    return layers


def _by_signature(layers: Mapping[str, Tensors]) -> dict[Signature, list[str]]:
    """The layers of the same shapes, in the order of the numbers in their names."""
    places: dict[Signature, list[str]] = {}
    for layer, tensors in layers.items():
        signature = tuple(sorted((leaf, tuple(tensor.shape)) for leaf, tensor in tensors.items()))
        places.setdefault(signature, []).append(layer)
    return {signature: sorted(names, key=_numbers) for signature, names in places.items()}


def _ordered(layers: list[str]) -> bool:
    """Whether names differ in nothing but their numbers, so that they say the order of the layers."""
    return len({re.sub(r"\d+", "#", name) for name in layers}) == 1


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", name)))


def _same_shapes(tensors: Tensors, expected: Tensors, names: Iterable[str]) -> bool:
    return all(tensors[name].shape == expected[name].shape for name in names)


def _place(theirs: str, ours: str) -> tuple[str, str]:
    """The layers of two tensors, or the tensors themselves if they have other names in them."""
    (layer, _, leaf), (own, _, own_leaf) = theirs.rpartition("."), ours.rpartition(".")
    return (layer, own) if leaf == own_leaf else (theirs, ours)


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _listed(layers: Mapping[str, Tensors]) -> str:
    def shapes(tensors: Tensors) -> str:
        return " ".join(str(list(tensor.shape)) for tensor in tensors.values())

    return ", ".join(f"{layer or 'itself'} {shapes(tensors)}" for layer, tensors in layers.items()) or "no layer"


def check_finite(tensors: Tensors) -> None:
    """Raise ValueError if a tensor holds NaN or infinite values."""
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} holds NaN or infinite values")
