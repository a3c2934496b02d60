"""The examples of operators in the standard: what is read computes what the standard says."""

import numpy as np
import onnx
import pytest
import torch

from ctbench.onnx import OnnxError, load_onnx
from ctbench.onnx.table import OPERATORS

onnx_cases = pytest.importorskip("onnx.backend.test.case.node")
LEAST = 400  # examples that are read


def examples():
    """Examples of operators that have a reader, whose first input holds floating point numbers."""
    for case in onnx_cases.collect_testcases(None):
        kinds = {node.op_type for node in case.model.graph.node}
        inputs, outputs = case.data_sets[0]
        arrays = [np.asarray(each) for each in inputs if not isinstance(each, list | dict)]
        is_read = kinds <= set(OPERATORS) and len(arrays) == len(inputs) > 0 and arrays[0].dtype.kind == "f"
        if is_read and not case.name.endswith("_expanded"):  # which spells an operator by others
            yield case, arrays, outputs[0]


@pytest.mark.filterwarnings("ignore")
def test_examples_of_the_standard(tmp_path):
    path, wrong, right = tmp_path / "model.onnx", list[str](), 0
    for case, inputs, output in examples():
        onnx.save(case.model, path)
        names = [info.name for info in case.model.graph.input]
        given = {name: torch.from_numpy(each.copy()) for name, each in zip(names[1:], inputs[1:], strict=True)}
        try:
            model = load_onnx(path, inputs=names[:1], outputs=[case.model.graph.output[0].name], given=given)
        except OnnxError:  # some need a batch of other sizes, and some settings are refused
            continue
        x = torch.from_numpy(inputs[0].copy())
        with torch.no_grad():
            found = model.double()(x.double().reshape(1, *model.input_shape)).numpy().ravel()
        wanted = np.asarray(output).astype(np.float64).ravel()
        is_right = found.shape == wanted.shape and np.allclose(found, wanted, rtol=1e-3, atol=1e-5, equal_nan=True)
        right += is_right
        wrong += [] if is_right else [case.name]
    assert not wrong
    assert right >= LEAST
