"""Evaluation of networks with ONNX Runtime, an independent implementation, to replay points.

    outputs = replay("network.onnx")(x)

The package is onnxruntime: pip install onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctbench.onnx.building import OnnxError
from ctbench.onnx.files import content_of

PACKAGE = "onnxruntime"


def can_replay() -> bool:
    """Whether ONNX Runtime is installed."""
    return find_spec(PACKAGE) is not None


def replay(
    path: Path | str, *, inputs: Sequence[str] | None = None, outputs: Sequence[str] | None = None
) -> Callable[[Tensor], Tensor]:
    """The network of a file: inputs [B, *input] to outputs [B, K] in C order, one input at a time.

    It runs on the CPU, in the precision of the file, and with a batch of 1, because some files accept no other batch.

    Args:
        path: the file, which is unpacked if its name ends in .gz.
        inputs: the names of the inputs that follow one another in x; by default all.
        outputs: the names of the outputs that follow one another in the result; by default all.

    Raises:
        OnnxError: ONNX Runtime is not installed, or cannot read the file.
    """
    session = _session(Path(path))
    arguments = {argument.name: argument for argument in session.get_inputs()}
    taken = [arguments[name] for name in (arguments if inputs is None else inputs)]
    shapes = [[size if isinstance(size, int) and size > 0 else 1 for size in argument.shape] for argument in taken]
    sizes = [int(np.prod(shape, dtype=int)) for shape in shapes]

    def compute(x: Tensor) -> Tensor:
        results = []
        for one in x.detach().cpu().numpy().reshape(len(x), -1):
            parts = np.split(one, np.cumsum(sizes)[:-1])
            given = {
                argument.name: part.reshape(shape).astype(_PRECISIONS.get(argument.type, np.float32))
                for argument, part, shape in zip(taken, parts, shapes, strict=True)
            }
            results.append(np.concatenate([each.reshape(-1) for each in session.run(outputs, given)]))
        return torch.from_numpy(np.stack(results))

    return compute


_PRECISIONS = {"tensor(float16)": np.float16, "tensor(float)": np.float32, "tensor(double)": np.float64}


def _session(path: Path) -> Any:
    try:
        runtime: Any = import_module(PACKAGE)
    except ImportError as error:
        raise OnnxError(f"ONNX Runtime is not there ({error}): pip install onnxruntime") from None
    options = runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1  # log only errors; a single input needs no threads
    try:
        # a path, where possible: external data lie next to it
        model = content_of(path) if path.suffix == ".gz" else str(path)
        return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the errors of the package have no other common base
        raise OnnxError(f"{path}: ONNX Runtime cannot read it ({' '.join(str(error).split())})") from None
