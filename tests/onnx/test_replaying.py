"""Replay in ONNX Runtime: it computes the function of the file, and names a missing package."""

import sys

import numpy as np
import pytest
import torch
from onnx import TensorProto
from torch import nn

from ctbench.onnx import OnnxError, can_replay, load_onnx, replay, save_onnx


def test_inputs_go_through_one_by_one(write):
    """The batch of this file is fixed to 1, and its last operator fails for any other."""
    weight = np.arange(8, dtype=np.float32).reshape(4, 2)
    path = write(("MatMul", ("x", weight), {}), ("Reshape", ("1", np.array([1, 2])), {}), output_shape=(1, 2))
    x = torch.tensor([[0.0, 1, 0, 0], [1, 0, 0, 0.5]], dtype=torch.float64)
    outputs = replay(path)(x)
    assert outputs.dtype == torch.float32
    assert outputs.tolist() == [[2, 3], [3, 4.5]]


@pytest.mark.parametrize(("kind", "dtype"), [(TensorProto.FLOAT, torch.float32), (TensorProto.DOUBLE, torch.float64)])
def test_the_precision_is_that_of_the_file(write, kind, dtype):
    one = np.ones((1, 4), dtype=np.float64 if kind == TensorProto.DOUBLE else np.float32)
    compute = replay(write(("Sub", ("x", one), {}), dtype=kind, output_shape=(1, 4)))
    x = torch.full((1, 4), 1 + 2.0**-40, dtype=torch.float64)
    assert compute(x).tolist() == [[2.0**-40 if dtype == torch.float64 else 0.0] * 4]


def test_images_keep_their_shape(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 5))
    save_onnx(model, tmp_path / "model.onnx", (2, 4, 3))
    x = torch.rand(3, 2, 4, 3)
    assert torch.allclose(replay(tmp_path / "model.onnx")(x), load_onnx(tmp_path / "model.onnx")(x), atol=1e-6)


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no network")
    with pytest.raises(OnnxError, match=r"model\.onnx: ONNX Runtime cannot read it"):
        replay(tmp_path / "model.onnx")


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    assert can_replay()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert not can_replay()
    with pytest.raises(OnnxError, match="pip install onnxruntime"):
        replay(tmp_path / "model.onnx")
