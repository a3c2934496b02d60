"""No tensor is made without its device where a device is at hand.

Whatever makes a tensor out of nothing names a device, unless it is listed here with the reason why it needs none.
"""

import ast
from pathlib import Path

import pytest

import ctbench

SOURCE = Path(ctbench.__file__).parent
FACTORIES = {
    *("arange", "as_tensor", "bartlett_window", "empty", "empty_strided", "eye", "from_numpy", "full", "linspace"),
    *("logspace", "ones", "rand", "randint", "randn", "randperm", "scalar_tensor", "tensor", "tril_indices"),
    *("triu_indices", "zeros", "Generator"),
}

HOST = "data that are read, drawn or counted on the CPU, before anybody has named a device"
TRACED = "shapes and places, before a network runs: the builder moves what an op holds to the network's device"
OPEN = "a network without tensors is traced on the CPU; `freeze` moves its ops to the device of the inputs"
FILE = "what stands in a file, which is read and written by the CPU"

# files whose tensors all lie on the CPU, and why
ON_THE_CPU = {
    "analyses/fairness.py": HOST,
    "analyses/one_neuron.py": "a paper's theory of one neuron, in double precision",
    "analyses/relu_growth.py": "a paper's theory of one neuron, in double precision",
    "datasets/base.py": HOST,
    "datasets/cifar.py": HOST,
    "datasets/digits.py": HOST,
    "datasets/folder.py": HOST,
    "datasets/mnist.py": HOST,
    "datasets/pictures.py": HOST,
    "datasets/published_corruptions.py": HOST,
    "datasets/sources.py": HOST,
    "datasets/synthetic.py": HOST,
    "datasets/tinyimagenet.py": HOST,
    "experiments/measuring.py": HOST,
    "networks/normalize.py": "constants of a network that is being made, which follow it to its device",
    "onnx/building.py": FILE,
    "onnx/comparisons.py": FILE,
    "onnx/moves.py": FILE,
    "onnx/operators.py": FILE,
    "onnx/recurrent.py": FILE,
    "onnx/replaying.py": FILE,
    "onnx/windows.py": FILE,
    "onnx/writing.py": FILE,
    "verify/integer_program.py": "integer programs are built and solved by the CPU, of a copy of the network there",
    "verify/milp.py": "integer programs are built and solved by the CPU, of a copy of the network there",
    "verify/worst_case.py": "integer programs are built and solved by the CPU, of a copy of the network there",
    "vnnlib/bounds.py": FILE,
    "vnnlib/halfspaces.py": FILE,
    "vnnlib/property.py": FILE,
    "vnnlib/reading.py": FILE,
}
# files with a few such places: how many, and why
FEW = {
    "analyses/box_growth.py": (1, "the bins of a histogram, whose values are moved to the CPU"),
    "analyses/loss_errors.py": (1, "integer programs are built and solved by the CPU, of a copy of the network there"),
    "graph/builder.py": (2, OPEN),
    "graph/comparisons.py": (1, TRACED),
    "graph/ops/activations.py": (2, TRACED),
    "graph/ops/along.py": (2, TRACED),
    "graph/ops/joins.py": (8, TRACED),
    "graph/ops/moves.py": (2, TRACED),
    "graph/ops/resampling.py": (2, TRACED),
    "networks/transformer.py": (1, "a parameter of a network that is being made, which follows it to its device"),
    "graph/trace.py": (4, f"the probe is drawn on the CPU, the same for all devices; {OPEN}"),
    "packs/network.py": (1, FILE),
    "packs/records.py": (1, f"{FILE}; the point is moved to the inputs"),
    "regions/box.py": (1, "radii for each feature are only checked, on the CPU, before there is an input"),
    "regions/segments.py": (2, "directions are made on the CPU, the same for all devices, and moved to the inputs"),
}


def named(call: ast.Call) -> bool:
    """Whether a call names a device; a generator takes it as its first argument."""
    if call.func.attr == "Generator":
        return bool(call.args or call.keywords)
    return any(keyword.arg in ("device", None) for keyword in call.keywords)


def without_device(text: str) -> list[int]:
    """The lines of calls of torch's factories that name no device."""
    calls = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "torch"
        and node.func.attr in FACTORIES
    ]
    return [call.lineno for call in calls if not named(call)]


def test_a_factory_without_a_device_is_seen():
    text = "x = torch.zeros(2)\ny = torch.ones(3, device=x.device)\nz = torch.zeros_like(x)\ng = torch.Generator()\n"
    assert without_device(text) == [1, 4]


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_tensor_has_its_device(path):
    name = path.relative_to(SOURCE).as_posix()
    if name in ON_THE_CPU:
        return
    lines = without_device(path.read_text())
    count, _ = FEW.get(name, (0, ""))
    assert len(lines) == count, f"{name} makes tensors without a device in lines {lines}; {count} are allowed"


def test_the_list_names_files_that_are_there():
    assert not [name for name in (*ON_THE_CPU, *FEW) if not (SOURCE / name).is_file()]
