"""Files of tensors: safetensors, and those that `torch.save` wrote, of which nothing but tensors is read.

A file of `torch.save` is a pickle. It is read by `torch.load(weights_only=True)`, which makes tensors and plain
containers and runs no code of the file; anything else in it is an error.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

SAFETENSORS = ".safetensors"
PICKLED = (".pt", ".pth", ".ckpt", ".bin")
SUFFIXES = (SAFETENSORS, *PICKLED)
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")  # keys that hold a state dict


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file by name, and its metadata.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or is not a safetensors file.
    """
    with _opened(path) as file:
        names = file.keys()  # the handle itself cannot be iterated over
        return {name: file.get_tensor(name) for name in names}, file.metadata() or {}


def metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file. Raises the errors of `read`."""
    with _opened(path) as file:
        return file.metadata() or {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file; an error that it raises becomes one that names the file."""
    _require(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a safetensors file ({error})") from None


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The state dict of a safetensors file, or of a file of `torch.save`, also inside a checkpoint.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds more than tensors and plain containers, or no state dict, or several.
    """
    if path.suffix not in PICKLED:
        return read(path)[0]
    _require(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        held = f" (it holds a {found[1]})" if found else ""
        raise ValueError(
            f"{path} is a pickle of more than tensors{held}, which could run any code, so it is not loaded. If you "
            f"trust it, convert it where its classes are defined: "
            f'model = torch.load("{path.name}", weights_only=False); '
            f'torch.save(model.state_dict(), "{path.stem}_weights.pt"); if it is a checkpoint, a dict with the weights '
            f'under a key such as "state_dict", save model["state_dict"] instead'
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError) as error:
        size = path.stat().st_size
        reason = str(error).partition("\n")[0] if size else "it is empty"
        raise ValueError(f"{path} is damaged, incomplete or not a file of torch.save ({reason})") from None
    return _state_dict(content, path)


def _require(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The one state dict in the content of a checkpoint."""
    dicts = dict(_state_dicts(content, ""))
    if len(dicts) == 1:
        return dict(*dicts.values())
    if not dicts:
        raise ValueError(f"{path} holds no state dict: save model.state_dict() with torch.save")
    raise ValueError(f"{path} holds {len(dicts)} state dicts ({', '.join(dicts)}): save the one that you mean alone")


def _state_dicts(content: Any, place: str) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The state dicts in a content, by their place: itself, one under a wrapper's key, or the items of a list."""
    if isinstance(content, list | tuple):
        for number, item in enumerate(content):
            yield from _state_dicts(item, f"{place}[{number}]")
    elif isinstance(content, Mapping):
        wrapped = [key for key in WRAPPERS if isinstance(content.get(key), Mapping | list | tuple)]
        for key in wrapped:
            yield from _state_dicts(content[key], f"{place}.{key}" if place else key)
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if tensors and not wrapped:
            yield place, tensors
