"""Frozen dataclasses as JSON and back, with every value checked against the type of its field.

A field whose type is an abstract dataclass (a method, a network, ...) is written as an object with the `name` of the
member and its fields. It is read by looking up this name among all subclasses.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from ctbench.members import members, own_name, required_fields

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

T = TypeVar("T")
FRACTION = re.compile(r"(\d+(?:\.\d+)?)/(\d*[1-9]\d*)")  # a number such as 8/255


class UnknownMemberError(ValueError):
    """A name that no class of its kind has, such as that of a class whose module was not imported."""


def encode(value: Any) -> Json:
    """A value of dataclasses, tuples, numbers and strings, as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        _check_fields(type(value))
        content = {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        name = own_name(type(value))
        return content if name is None else {"name": name, **content}
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(f"a recipe cannot hold a {type(value).__name__}: {value!r}")


def _check_fields(kind: type) -> None:
    """Raise ValueError if a class annotates attributes that are not dataclass fields, e.g. without its decorator."""
    own = {name for name, hint in vars(kind).get("__annotations__", {}).items() if "ClassVar" not in str(hint)}
    lacking = own - {field.name for field in dataclasses.fields(kind)}
    if lacking:
        raise ValueError(
            f"{', '.join(sorted(lacking))} of {kind.__name__} would not be part of the recipe: write "
            f"@dataclass(frozen=True, kw_only=True) above the class"
        )


def decode(kind: type[T], content: Json, path: str = "") -> T:
    """The value of this type that `encode` wrote as these JSON values.

    Raises:
        ValueError: a value is invalid; the message has the path of the field, its value and the valid values.
    """
    decoded: T = _decode(kind, content, path)
    return decoded


def with_changes(value: T, changes: list[str]) -> T:
    """A dataclass with changes "path.to.field=value"; a value that is not JSON is plain text.

    A number may be a fraction, such as 8/255.
    """
    return changed(type(value), encode(value), dict(map(change, changes)))


def change(text: str) -> tuple[str, str]:
    """The path and the value of a change "path.to.field=value"."""
    path, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is not a change: write path.to.field=value")
    return path, value


def changed(kind: type[T], content: Json, changes: Mapping[str, str]) -> T:
    """The dataclass of JSON values, with other values at some paths: a part is set before the fields in it."""
    for path, text in sorted(changes.items(), key=lambda change: change[0].count(".")):
        _set(kind, content, path.split("."), _parse(text), path)
    return decode(kind, content)


def differences(first: Json, second: Json, path: str = "") -> list[str]:
    """The paths at which JSON values differ, e.g. "optimizer.lr"."""
    if not (isinstance(first, dict) and isinstance(second, dict)):
        return [] if first == second else [path]
    if path and first.get("name") != second.get("name"):  # members of other classes
        return [path]
    keys = dict.fromkeys((*first, *second))
    return [
        place
        for key in keys
        for place in differences(first.get(key), second.get(key), f"{path}.{key}" if path else key)
    ]


@functools.cache
def field_types(kind: type) -> dict[str, Any]:
    """The types of the fields of a dataclass."""
    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind)}


def kinds_of(hint: Any) -> list[Any]:
    """The types of the values of a field, without that of None: usually one."""
    if get_origin(hint) not in (Union, types.UnionType):
        return [hint]
    return [option for option in get_args(hint) if option is not type(None)]


def titled(kind: type) -> str:
    """The name of a dataclass in messages, with its name in a recipe."""
    name = own_name(kind)
    return kind.__name__ if name is None else f"{kind.__name__} ({name!r})"


def _parse(text: str) -> Json:
    try:
        parsed: Json = json.loads(text)
    except json.JSONDecodeError:
        return {"True": True, "False": False, "None": None}.get(text, text)
    return parsed


def _set(kind: Any, content: Any, path: list[str], value: Json, whole: str) -> None:
    """Put a value into the JSON of a dataclass, at a path of fields."""
    kind = _class_of(kind, content, whole)
    hints = field_types(kind)
    field, *rest = path
    if field not in hints:
        raise ValueError(f"{whole!r}: {titled(kind)} has no field {field!r}; its fields are {_listed(hints)}")
    kinds = kinds_of(hints[field])
    inner: Any = next(filter(dataclasses.is_dataclass, kinds), None)
    if rest:
        if inner is not None and content.get(field) is None:
            if inspect.isabstract(inner):
                raise ValueError(f"{whole!r}: there is no {field}: set {field}=NAME first")
            content[field] = {}
        if not isinstance(content.get(field), dict):
            raise ValueError(f"{whole!r}: {field!r} is a plain value and has no field {rest[0]!r}")
        _set(inner, content[field], rest, value, whole)
        return
    if isinstance(value, str) and inspect.isabstract(inner) and (str not in kinds or value in members(inner)):
        content[field] = _of_name(inner, value, whole)
    elif isinstance(value, str) and float in kinds and (fraction := FRACTION.fullmatch(value)):
        content[field] = float(fraction[1]) / float(fraction[2])
    else:
        content[field] = value


def _of_name(kind: Any, name: str, path: str) -> dict[str, Json]:
    """The JSON of a member with its defaults; later changes may add fields without a default."""
    concrete = _class_of(kind, {"name": name}, path)
    content: dict[str, Json] = {"name": name}
    for field in dataclasses.fields(concrete):
        if field.default_factory is not MISSING:
            content[field.name] = encode(field.default_factory())
        elif field.default is not MISSING:
            content[field.name] = encode(field.default)
    return content


def _decode(hint: Any, content: Any, path: str) -> Any:
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return None if content is None and type(None) in options else _decode_kinds(kinds_of(hint), content, path)
    if origin is Literal:
        if content not in options:
            raise _invalid(path, content, f"one of {_listed(options)}")
        return content
    if origin is tuple:
        return _decode_tuple(options, content, path)
    if dataclasses.is_dataclass(hint):
        return _decode_dataclass(hint, content, path)
    return _decode_plain(hint, content, path)


def _decode_kinds(kinds: list[Any], content: Any, path: str) -> Any:
    """A value of one of several types: of its own, else of the first that takes it."""
    if len(kinds) == 1:
        return _decode(kinds[0], content, path)
    for kind in sorted(kinds, key=lambda kind: type(content) is not kind):
        try:
            return _decode(kind, content, path)
        except ValueError:
            if isinstance(content, dict) and dataclasses.is_dataclass(kind):
                raise  # which says what is wrong in it
    raise _invalid(path, content, " or ".join(map(_described, kinds)))


def _decode_tuple(items: tuple[Any, ...], content: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(content, list):
        raise _invalid(path, content, "a list, e.g. [1, 2]")
    if items[-1] is Ellipsis:
        return tuple(_decode(items[0], item, path) for item in content)
    if len(content) != len(items):
        raise _invalid(path, content, f"a list of {len(items)} values")
    return tuple(_decode(kind, item, path) for kind, item in zip(items, content, strict=True))


def _decode_dataclass(kind: Any, content: Any, path: str) -> Any:
    if isinstance(content, str):
        content = {"name": content}
    if not isinstance(content, dict):
        raise _invalid(path, content, f"an object with the fields of {titled(kind)}")
    concrete = _class_of(kind, content, path)
    entries = {key: value for key, value in content.items() if not (key == "name" and own_name(concrete))}
    hints = field_types(concrete)
    unknown = [key for key in entries if key not in hints]
    if unknown:
        where = f"{path}.{unknown[0]}" if path else unknown[0]
        raise ValueError(f"{where!r}: {titled(concrete)} has no field {unknown[0]!r}; its fields are {_listed(hints)}")
    missing = [name for name in required_fields(concrete) if name not in entries]
    if missing:
        raise ValueError(f"{path or 'the recipe'}: {titled(concrete)} needs a value for {_listed(missing)}")
    values = {key: _decode(hints[key], value, f"{path}.{key}" if path else key) for key, value in entries.items()}
    try:
        return concrete(**values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}" if path else str(error)) from None


def _class_of(kind: Any, content: Any, path: str) -> Any:
    """The concrete class of an object: if the type of the field is abstract, the member that the object names."""
    if not inspect.isabstract(kind):
        return kind
    name, every = content.get("name"), members(kind, records=True)
    if name not in every:
        choices = members(kind)
        if name is None:
            raise ValueError(f"{path}: the object must have a name, one of {_listed(choices)}")
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        expected = f"the name of {article} {kind.__name__.lower()}: {_listed(choices)}"
        raise UnknownMemberError(str(_invalid(path, name, expected)))
    return every[name]


def _decode_plain(kind: Any, content: Any, path: str) -> Any:
    if kind is float and isinstance(content, int) and not isinstance(content, bool):
        return float(content)
    if type(content) is not kind:
        raise _invalid(path, content, _described(kind))
    return content


def _described(kind: Any) -> str:
    """A type, in words."""
    if get_origin(kind) is Literal:
        return f"one of {_listed(get_args(kind))}"
    if get_origin(kind) is tuple:
        return "a list"
    if dataclasses.is_dataclass(kind):
        return f"a {getattr(kind, '__name__', kind)}"
    return {float: "a number", int: "a whole number", bool: "true or false", str: "text"}.get(kind, str(kind))


def _listed(names: Any) -> str:
    return ", ".join(str(name) for name in names) or "none"


def _invalid(path: str, content: Any, expected: str) -> ValueError:
    return ValueError(f"{path or 'the recipe'} is {json.dumps(content)}: it must be {expected}")
