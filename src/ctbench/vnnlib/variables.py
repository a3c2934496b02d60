"""The declared variables of a VNN-LIB file, in both versions of the language.

    1.0   (declare-const X_0 Real) (declare-fun Y_0 () Real)
    2.0   (declare-network f (declare-input X Real [1,5]) (declare-output Y Real [5]))

A variable is a position: first all inputs, then all outputs, tensor after tensor in the order of the file, each in C
order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ctbench.vnnlib.syntax import Form, LocatedError, Word, application, check_count, quoted

VARIABLE = re.compile(r"[XY]_(0|[1-9][0-9]{0,8})")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
SHAPE = re.compile(r"\[\s*(?:[0-9]{1,9}\s*(?:,\s*[0-9]{1,9}\s*)*)?\]")
VERSION = re.compile(r"<([0-9]{1,4})\.[0-9]{1,4}>")
TYPES = ("Real", "real", "float32", "float64")
MAX_VARIABLES = 10_000_000

CONSTANTS = ("declare-const", "declare-fun")
DECLARATIONS = (*CONSTANTS, "declare-network", "vnnlib-version")


class Declared(NamedTuple):
    """A tensor of a network."""

    name: str
    shape: tuple[int, ...]
    onnx_name: str | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Network:
    """A network that a query of VNN-LIB 2.0 declares."""

    name: str
    inputs: tuple[Declared, ...]
    outputs: tuple[Declared, ...]
    equal_to: str | None = None  # the network that it is the same as


@dataclass(frozen=True)
class Variables:
    """The variables by their names: inputs are 0, 1, ..., and outputs follow."""

    inputs: int
    outputs: int
    networks: tuple[Network, ...] = ()
    places: dict[str, int] = field(default_factory=dict)  # those of the names that were looked for
    tensors: dict[str, tuple[Declared, int]] = field(default_factory=dict)  # with the position of the first entry

    @classmethod
    def of(cls, declarations: Sequence[Form]) -> Variables:
        kinds = {application(form)[0]: form for form in reversed(declarations)}
        version = kinds.pop("vnnlib-version", None)
        if version is not None:
            _check_version(version, "declare-network" in kinds)
        if "declare-network" not in kinds:
            return cls._of_constants([form for form in declarations if form is not version])
        mixed = next((form for kind, form in kinds.items() if kind in CONSTANTS), None)
        if mixed is not None:
            raise LocatedError("a query that declares networks has no other constants", mixed.at)
        return cls._of_networks([form for form in declarations if application(form)[0] == "declare-network"])

    @classmethod
    def _of_constants(cls, declarations: Sequence[Form]) -> Variables:
        names = set[str]()
        for form in declarations:
            names.add(_constant(form, names))
        if not names:
            return cls(0, 0)
        inputs, outputs = (_count(names, letter) for letter in "XY")
        places = {f"X_{i}": i for i in range(inputs)} | {f"Y_{k}": inputs + k for k in range(outputs)}
        return cls(inputs, outputs, places=places)

    @classmethod
    def _of_networks(cls, declarations: Sequence[Form]) -> Variables:
        networks = tuple(_network(form) for form in declarations)
        sides = [[tensor for one in networks for tensor in getattr(one, side)] for side in ("inputs", "outputs")]
        tensors, first = dict[str, tuple[Declared, int]](), 0
        for tensor in (*sides[0], *sides[1]):
            if tensor.name in tensors:
                raise LocatedError(f"{tensor.name} is declared twice", declarations[0].at)
            tensors[tensor.name] = tensor, first
            first += tensor.size
        if first > MAX_VARIABLES:
            raise LocatedError(f"{first} variables are declared: at most {MAX_VARIABLES}", declarations[0].at)
        before = set[str]()
        for form, network in zip(declarations, networks, strict=True):
            if network.name in before:
                raise LocatedError(f"the network {network.name} is declared twice", form.at)
            if network.equal_to is not None and network.equal_to not in before:
                raise LocatedError(
                    f"{network.name} is equal to {network.equal_to}, which is not declared before", form.at
                )
            before.add(network.name)
        inputs, outputs = (sum(tensor.size for tensor in side) for side in sides)
        return cls(inputs, outputs, networks, tensors=tensors)

    def find(self, text: str) -> int | None:
        """The variable of a name, e.g. "X_0" or "X[0,1]"; None if it is not the name of a variable."""
        place = self.places.get(text)
        if place is None and self.tensors and (place := self._entry(text)) is not None:
            self.places[text] = place
        return place

    def _entry(self, text: str) -> int | None:
        name, bracket, indices = text.partition("[")
        if name not in self.tensors or (bracket and not SHAPE.fullmatch(bracket + indices)):
            return None
        (tensor, first), place = self.tensors[name], 0
        at = _numbers(bracket + indices) if bracket else ()
        if not tensor.shape and at in ((), (0,)):
            return first
        if len(at) != len(tensor.shape) or any(i >= n for i, n in zip(at, tensor.shape, strict=True)):
            raise LocatedError(f"{quoted(text)} is not an entry of {name}, which has the shape {list(tensor.shape)}")
        for i, n in zip(at, tensor.shape, strict=True):
            place = place * n + i
        return first + place

    def column(self, variable: int) -> int:
        """The column of a variable in rows over outputs and inputs: first the outputs, then the inputs."""
        return variable + self.outputs if variable < self.inputs else variable - self.inputs

    def name(self, variable: int) -> str:
        """The name of a variable in the file."""
        for tensor, first in self.tensors.values():
            if first <= variable < first + tensor.size:
                indices, rest = list[int](), variable - first
                for n in reversed(tensor.shape):
                    rest, index = divmod(rest, n)
                    indices.insert(0, index)
                return f"{tensor.name}[{','.join(map(str, indices))}]" if indices else tensor.name
        return f"X_{variable}" if variable < self.inputs else f"Y_{variable - self.inputs}"


def _check_version(form: Form, has_networks: bool) -> None:
    _, arguments = application(form)
    check_count(form, len(arguments) == 1, "a version, e.g. <2.0>")
    found = VERSION.fullmatch(arguments[0].text) if isinstance(arguments[0], Word) else None
    if found is None or int(found[1]) not in (1, 2):
        raise LocatedError("the version of VNN-LIB is not known: expected <1.0> or <2.0>", form.at)
    if int(found[1]) == 2 and not has_networks:
        raise LocatedError("a query of VNN-LIB 2.0 must declare a network: (declare-network NAME ...)", form.at)


def _constant(form: Form, names: set[str]) -> str:
    """The name of a constant, which must be new."""
    command, arguments = application(form)
    if command == "declare-fun" and len(arguments) == 3 and isinstance(arguments[1], Form) and not arguments[1].parts:
        arguments = [arguments[0], arguments[2]]
    words = [part.text for part in arguments if isinstance(part, Word)]
    expected = "a name and a type" if command == "declare-const" else "a name, () and a type"
    check_count(form, len(words) == len(arguments) == 2, expected)
    name, kind = words
    if not VARIABLE.fullmatch(name):
        raise LocatedError(f"a variable is called {quoted(name)}: names are X_0, X_1, ... and Y_0, ...", form.at)
    if kind != "Real":
        raise LocatedError(f"{name} is declared as {quoted(kind)}: expected Real", form.at)
    if name in names:
        raise LocatedError(f"{name} is declared twice", form.at)
    return name


def _count(declared: set[str], letter: str) -> int:
    """The number of variables of a letter, which must be numbered 0, 1, 2, ..."""
    count = max(1, sum(name[0] == letter for name in declared))
    missing = next((name for name in (f"{letter}_{i}" for i in range(count)) if name not in declared), None)
    if missing is not None:
        raise LocatedError(f"{missing} is not declared: {letter} must be numbered 0, 1, 2, ... without gaps")
    return count


def _network(form: Form) -> Network:
    _, arguments = application(form)
    name = arguments[0] if arguments else form
    if not isinstance(name, Word) or not NAME.fullmatch(name.text):
        raise LocatedError("declare-network must be followed by a name of letters, digits and _", form.at)
    sides: dict[str, list[Declared]] = {"declare-input": [], "declare-output": []}
    equal_to = None
    for part in arguments[1:]:
        kind, details = application(part)
        if kind in sides:
            sides[kind].append(_tensor(part, kind))
        elif kind in ("equal-to", "isomorphic-to"):
            check_count(part, len(details) == 1 and isinstance(details[0], Word), "the name of a network")
            assert isinstance(details[0], Word)
            equal_to = details[0].text if kind == "equal-to" else equal_to
        elif kind == "declare-hidden":
            raise LocatedError(
                "properties of hidden values are not supported: make them outputs of the network", part.at
            )
        else:
            expected = "declare-input, declare-output, equal-to or isomorphic-to"
            raise LocatedError(f"{quoted(kind)} is not supported in a network: expected {expected}", part.at)
    for kind, tensors in sides.items():
        if not tensors:
            raise LocatedError(f"the network {name.text} has no {kind}", form.at)
    inputs, outputs = (tuple(tensors) for tensors in sides.values())
    return Network(name.text, inputs, outputs, equal_to)


def _tensor(form: Form | Word, kind: str) -> Declared:
    assert isinstance(form, Form)
    words = [part.text for part in form.parts[1:] if isinstance(part, Word)]
    check_count(form, len(words) == len(form.parts) - 1 and len(words) in (3, 4), "a name, a type and a shape")
    name, element, shape = words[:3]
    if not NAME.fullmatch(name):
        raise LocatedError(f"a tensor is called {quoted(name)}: names have letters, digits and _", form.at)
    if element not in TYPES:
        raise LocatedError(f"{name} is declared as {quoted(element)}: expected {', '.join(TYPES)}", form.at)
    if not SHAPE.fullmatch(shape) or 0 in _numbers(shape):
        raise LocatedError(f"the shape of {name} is {quoted(shape)}: expected sizes, e.g. [1,3,32,32]", form.at)
    return Declared(name, _numbers(shape), words[3].strip('"') if len(words) == 4 else None)


def _numbers(bracket: str) -> tuple[int, ...]:
    """The numbers of a shape or of indices, e.g. [0, 1]."""
    return tuple(int(each) for each in bracket.strip("[] \t\r\n").split(",") if each.strip())
