"""Evaluation of networks with ONNX Runtime, an independent implementation, to replay points.

    outputs = replay("network.onnx")(x)

The package is onnxruntime: pip install onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctbench.onnx.building import OnnxError

PACKAGE = "onnxruntime"


def can_replay() -> bool:
    """Whether ONNX Runtime is installed."""
    return find_spec(PACKAGE) is not None


def replay(path: Path | str) -> Callable[[Tensor], Tensor]:
    """The network of a file: inputs [B, *input] to outputs [B, K], one input at a time.

    It runs on the CPU, in the precision of the file, and with a batch of 1, because some files accept no other batch.

    Raises:
        OnnxError: ONNX Runtime is not installed, or cannot read the file.
    """
    session = _session(path)
    argument = session.get_inputs()[0]
    precision = np.float64 if argument.type == "tensor(double)" else np.float32

    def compute(x: Tensor) -> Tensor:
        inputs = x.detach().cpu().numpy().astype(precision)
        outputs = [session.run(None, {argument.name: one[None]})[0].reshape(1, -1) for one in inputs]
        return torch.from_numpy(np.concatenate(outputs))

    return compute


def _session(path: Path | str) -> Any:
    try:
        runtime: Any = import_module(PACKAGE)
    except ImportError as error:
        raise OnnxError(f"ONNX Runtime is not there ({error}): pip install onnxruntime") from None
    options = runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1  # log only errors; a single input needs no threads
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the errors of the package have no other common base
        raise OnnxError(f"{path}: ONNX Runtime cannot read it ({' '.join(str(error).split())})") from None
