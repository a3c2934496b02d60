"""The space of a study: which values the fields of a recipe may have.

    Space.of(["method.ratio=0.1,0.4,0.7", "l1=1e-6:1e-4:log"])

A parameter is the path of a field, or paths joined by "+", which all get the same value. Its values are choices, texts
like those of `--set`, or a range of numbers.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ctbench.results import jsonl
from ctbench.training import Recipe
from ctbench.training.codec import FRACTION

# a study compares recipes at one task, and a lucky seed is no hyper-parameter
FIXED = ("threat", "dataset", "seed", "validation", "select", "name", "source", "published", "train_samples")
MOST = 200  # combinations that are checked in advance; of more, an even part
FILE = ".json"

Value = str | float | int  # a choice is a text


@dataclass(frozen=True)
class Choices:
    """Some values, as texts."""

    texts: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"choices": list(self.texts)}

    def ends(self) -> Sequence[Value]:
        """The values to check in advance."""
        return self.texts

    def checked(self, name: str, recipe: Recipe) -> Choices:
        """These choices. Raises ValueError unless each makes a recipe of its own."""
        seen: dict[str, str] = {}
        for text in self.texts:
            other = seen.setdefault(changed(recipe, {name: text}).hash, text)
            if other != text:
                raise ValueError(f"{name}: {other} and {text} are the same value: leave one of them out")
        return self


@dataclass(frozen=True, kw_only=True)
class Range:
    """The numbers from one to another."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def to_json(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high, "log": self.log, "whole": self.whole}

    def ends(self) -> Sequence[Value]:
        return [int(end) if self.whole else end for end in (self.low, self.high)]

    def checked(self, name: str, recipe: Recipe) -> Range:
        """This range, of whole numbers if the field holds one. Raises ValueError if an end is not valid."""
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"{name}: the range {self.low:g}:{self.high:g} is empty: give LOW:HIGH with LOW < HIGH")
        if self.log and self.low <= 0:
            raise ValueError(f"{name}: a logarithmic range begins above 0, and this one at {self.low:g}")
        whole = all(_is_whole(recipe, path) for path in name.split("+"))
        if whole and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(f"{name} is a whole number: give whole numbers as the ends of its range")
        checked = Range(low=self.low, high=self.high, log=self.log, whole=whole)
        for end in checked.ends():
            changed(recipe, {name: end})
        return checked


def _is_whole(recipe: Recipe, path: str) -> bool:
    """Whether a field of a recipe holds a whole number."""
    value: Any = recipe.to_json()
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True)
class Space:
    """The values of each parameter, by its name."""

    parameters: Mapping[str, Choices | Range] = field(default_factory=dict)

    @classmethod
    def of(cls, options: Sequence[str]) -> Self:
        """The space that some options describe: "path=a,b,c", "path=low:high", "path=low:high:log", or a JSON file.

        Raises:
            ValueError: an option has another form, a file is no JSON object, or a parameter is named twice.
        """
        return cls.joined([cls(_of_file(Path(each)) if is_file(each) else dict([_read(each)])) for each in options])

    @classmethod
    def joined(cls, spaces: Sequence[Space]) -> Self:
        """The parameters of several spaces. Raises ValueError if two have the same field."""
        parameters: dict[str, Choices | Range] = {}
        for name, values in (entry for space in spaces for entry in space.parameters.items()):
            if not set(name.split("+")).isdisjoint(path for other in parameters for path in other.split("+")):
                raise ValueError(f"{name} is in the space twice: name each field once")
            parameters[name] = values
        return cls(parameters)

    def to_json(self) -> dict[str, Any]:
        return {name: values.to_json() for name, values in self.parameters.items()}

    @property
    def size(self) -> int | None:
        """The number of combinations; None if there is a range."""
        if any(isinstance(values, Range) for values in self.parameters.values()):
            return None
        return math.prod(len(values.ends()) for values in self.parameters.values())

    def combinations(self) -> Iterator[dict[str, Value]]:
        """All combinations of choices, and of the ends of ranges."""
        ends = (values.ends() for values in self.parameters.values())
        return (dict(zip(self.parameters, values, strict=True)) for values in itertools.product(*ends))

    def checked(self, recipe: Recipe) -> Space:
        """This space for a recipe; ranges of fields that hold whole numbers are of whole numbers.

        Raises:
            ValueError: it is empty, a field is fixed in a study, or a value or combination is not valid in the recipe.
        """
        if not self.parameters:
            raise ValueError("the space is empty: give the values of a field, e.g. method.ratio=0.1,0.4")
        for path in (path for name in self.parameters for path in name.split("+")):
            if path.partition(".")[0] in FIXED and not path.startswith("dataset.augmentation"):
                raise ValueError(f"{path} is the same in all trials of a study, or they could not be compared")
        checked = Space({name: values.checked(name, recipe) for name, values in self.parameters.items()})
        number = math.prod(len(values.ends()) for values in checked.parameters.values())
        for values in itertools.islice(checked.combinations(), 0, None, math.ceil(number / MOST)):
            changed(recipe, values)
        return checked


def is_file(option: str) -> bool:
    """Whether an option names a file."""
    return option.endswith(FILE) and "=" not in option


def changed(recipe: Recipe, values: Mapping[str, Value]) -> Recipe:
    """The recipe with the values of parameters. Raises ValueError if one is not valid."""
    return recipe.with_changes([f"{path}={value}" for name, value in values.items() for path in name.split("+")])


def _read(option: str) -> tuple[str, Choices | Range]:
    """The parameter of an option."""
    name, equals, text = option.partition("=")
    if not equals or not all(name.split("+")) or not text:
        raise ValueError(f"{option!r} is not a part of a space: write PATH=A,B,C or PATH=LOW:HIGH or PATH=LOW:HIGH:log")
    return name, _values(option, text)


def _values(option: str, text: str) -> Choices | Range:
    """Choices or a range, from text. A colon within brackets or quotes belongs to a value."""
    if ":" in text and not any(mark in text for mark in '{["'):
        low, high, *log = text.split(":")
        if log not in ([], ["log"]):
            raise ValueError(f"{option!r}: a range is LOW:HIGH or LOW:HIGH:log")
        return Range(low=_number(option, low), high=_number(option, high), log=bool(log))
    return _choices(option, split(text))


def _choices(option: str, texts: Sequence[str]) -> Choices:
    if not texts or not all(texts) or len(set(texts)) < len(texts):
        raise ValueError(f"{option!r}: give different values with commas between them, e.g. method.ratio=0.1,0.4")
    return Choices(tuple(texts))


def _number(option: str, text: str) -> float:
    if fraction := FRACTION.fullmatch(text):
        return float(fraction[1]) / float(fraction[2])
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{option!r}: {text!r} is not a number, such as 0.1, 1e-6 or 8/255") from None


def split(text: str) -> list[str]:
    """The parts between commas that are not in brackets: "[1,2],3" has two."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _of_file(path: Path) -> dict[str, Choices | Range]:
    """The parameters of a JSON file: {"PATH": [A, B], "PATH": "LOW:HIGH:log"}."""
    content = jsonl.read_json(path)
    if not isinstance(content, dict):
        raise ValueError(
            f'{path} is not a space: write an object such as {{"method.ratio": [0.1, 0.4], "l1": "0:1e-4"}}'
        )
    entries: dict[str, Choices | Range] = {}
    for name, values in content.items():
        with jsonl.named(path):
            if isinstance(values, list):
                entries[name] = _choices(name, [each if isinstance(each, str) else json.dumps(each) for each in values])
            elif isinstance(values, str):
                entries |= dict([_read(f"{name}={values}")])
            else:
                raise ValueError(f'{name} is {values!r}: give a list of values, or a range such as "1e-6:1e-4:log"')
    return entries
