"""Shared by tests of reading and writing: small models, networks of others, and the outputs of ONNX Runtime."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

UNSHAPED = {"GroupNormalization"}  # operators that keep their shape, which onnx does not infer


@pytest.fixture(scope="session")
def reference() -> Callable[..., torch.Tensor]:
    """The output of ONNX Runtime for each sample, one by one or as a batch."""

    def run(path: Path, x: torch.Tensor, *, whole: bool = False) -> torch.Tensor:
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        batches = [x] if whole else x.split(1)
        return torch.tensor(np.concatenate([session.run(None, {name: batch.numpy()})[0] for batch in batches]))

    return run


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a model of nodes (kind, inputs, attributes) one after the other: an input is "x", the name of an earlier
    output ("1" is that of the first node), an array, or None."""

    def make(
        *nodes: tuple[str, tuple[Any, ...], dict[str, Any]],
        shape: tuple[Any, ...] = (1, 4),
        opset: int = 17,
        dtype: int = TensorProto.FLOAT,
        output_shape: tuple[Any, ...] | None = None,
    ) -> Path:
        constants, protos = {}, []
        for number, (kind, inputs, attributes) in enumerate(nodes, start=1):
            names = []
            for place, given in enumerate(inputs):
                if isinstance(given, np.ndarray):
                    constants[f"constant{number}.{place}"] = given
                names.append(f"constant{number}.{place}" if isinstance(given, np.ndarray) else given or "")
            last = number == len(nodes)
            attributes = dict(attributes)
            outputs = attributes.pop("outputs", ["y" if last else str(number)])
            protos.append(helper.make_node(kind, names, outputs, f"node{number}", **attributes))
        graph = helper.make_graph(
            protos,
            "test",
            [helper.make_tensor_value_info("x", dtype, shape)],
            [helper.make_tensor_value_info("y", dtype, shape if nodes[-1][0] in UNSHAPED else output_shape)],
            [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        if output_shape is None and nodes[-1][0] not in UNSHAPED:
            model = onnx.shape_inference.infer_shapes(model, data_prop=True)
            model.graph.output[0].type.tensor_type.shape.SetInParent()  # even where none is known
        path = tmp_path / "model.onnx"
        onnx.save(model, path)
        return path

    return make


def _others() -> list[Path]:
    root = Path(os.environ.get("CTBENCH_DATA", "/nonexistent")).parent
    return sorted([*root.glob("vnncomp/onnx/*.onnx"), *root.glob("reference_bounds/*.onnx")])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests with an argument `network` run on ONNX files of others, next to the folder of CTBENCH_DATA."""
    if "network" in metafunc.fixturenames:
        paths: list[Any] = list(_others())
        if not paths:
            paths = [
                pytest.param(None, marks=pytest.mark.skip(reason="no ONNX files next to the folder of CTBENCH_DATA"))
            ]
        metafunc.parametrize("network", paths, ids=lambda path: getattr(path, "stem", "none"))
