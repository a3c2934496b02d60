"""Networks of your own in the record of a run: what they were, so that they can be recognised, but not built.

ctbench.train(recipe, model=Net(), data=data)
"""

import hashlib
import inspect
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import nn

from ctbench.networks.base import Architecture


@dataclass(frozen=True, kw_only=True)
class Given(Architecture):
    """A module that was given to `ctbench.train`.

    Args:
        module: the qualified name of its class. It depends on how the file was imported, so it decides nothing.
        source: a digest of the module as it is printed, and of the source of its classes that are not torch's.
        weights: a digest of its parameters and buffers at the start of the training.
    """

    name: ClassVar[str] = "given"
    record_only: ClassVar[bool] = True
    module: str
    source: str
    weights: str

    @classmethod
    def of(cls, model: nn.Module) -> Self:
        """The record of a module with the weights that it has now."""
        return cls(module=_qualified(type(model)), source=_source(model), weights=_weights(model))

    def same_source(self, model: nn.Module) -> bool:
        """Whether a module is made of the same classes and layers, from whichever module they were imported."""
        return _source(model) == self.source

    def layers(self, input_shape: tuple[int, ...], classes: int) -> list[nn.Module]:
        """Raises ValueError: no file holds the code of a module."""
        raise ValueError(
            f"the network is {self.module}, a module of your own, and only its weights are stored: give the run folder "
            f"and the module, ctbench.load_run(folder, model=...) in Python or --model MODULE:FUNCTION"
        )


def _qualified(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _source(model: nn.Module) -> str:
    kinds = {_qualified(type(module)): type(module) for module in model.modules()}
    texts = [_text(kind) for name, kind in sorted(kinds.items()) if not name.startswith("torch.")]
    return _digest(repr(model).encode(), *(text.encode() for text in texts))


def _text(kind: type) -> str:
    """The source of a class, or its name if it was typed into an interpreter that keeps no source."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return _qualified(kind)


def _weights(model: nn.Module) -> str:
    tensors = model.state_dict().items()
    return _digest(*(part for name, value in tensors for part in (f"{name} {value.dtype}".encode(), _bytes(value))))


def _bytes(tensor: object) -> bytes:
    return tensor.detach().cpu().contiguous().numpy().tobytes()  # type: ignore[attr-defined,no-any-return]


def _digest(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]
