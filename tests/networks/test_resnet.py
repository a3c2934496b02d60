"""The residual networks: their formulas by hand, their sizes, and the published network of the same shape."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench.networks import Architecture, ResNet, ResNet2B, ResNet4B, WideResNet

CIFAR = (3, 32, 32)
CROP = (3, 56, 56)


def conv(inputs: int, outputs: int, kernel: int) -> int:
    """The parameters of a convolution."""
    return inputs * outputs * kernel**2 + outputs


def dense(inputs: int, outputs: int) -> int:
    """The parameters of a dense layer."""
    return inputs * outputs + outputs


def halving(inputs: int, outputs: int, kernel: int, shortcut: int) -> int:
    """The parameters of a block whose shortcut is a convolution."""
    return conv(inputs, outputs, kernel) + conv(outputs, outputs, 3) + conv(inputs, outputs, shortcut)


def wide(inputs: int, outputs: int) -> int:
    """The parameters of a wide block: a batch norm before each convolution except that of the shortcut."""
    return 2 * inputs + 2 * outputs + halving(inputs, outputs, 3, 1)


RESNET = (
    conv(3, 16, 3)
    + 2 * halving(16, 16, 3, 1)
    + halving(16, 32, 4, 2)
    + halving(32, 64, 4, 2)
    + dense(64 * 8 * 8, 1000)
    + dense(1000, 10)
)
RESNET_2B = conv(3, 8, 3) + halving(8, 16, 3, 1) + 2 * conv(16, 16, 3) + dense(16 * 8 * 8, 100) + dense(100, 10)
RESNET_4B = (
    conv(3, 16, 3)
    + (halving(16, 32, 3, 1) + 2 * conv(32, 32, 3))
    + (halving(32, 32, 3, 1) + 2 * conv(32, 32, 3))
    + dense(32 * 4 * 4, 100)
    + dense(100, 10)
)
WIDE = conv(3, 16, 3) + wide(16, 160) + wide(160, 320) + wide(320, 640) + 2 * 640 + dense(640 * 2 * 2, 200)


@pytest.mark.parametrize(
    ("architecture", "input_shape", "classes", "by_hand", "count"),
    [
        (ResNet(), CIFAR, 10, RESNET, 4_214_850),
        (ResNet2B(), CIFAR, 10, RESNET_2B, 112_006),
        (ResNet4B(), CIFAR, 10, RESNET_4B, 123_734),
        (WideResNet(), CROP, 200, WIDE, 7_944_520),
        # a batch norm after each of 13 convolutions, 16 filters in 7 of them, and after the dense layer
        (ResNet(batch_norm=True), CIFAR, 10, RESNET + 2 * (7 * 16 + 3 * 32 + 3 * 64 + 1000), 4_217_650),
        # without the batch norms in front of the six convolutions and of the pooling
        (WideResNet(batch_norm=False), CROP, 200, WIDE - 2 * (16 + 160 + 160 + 320 + 320 + 640 + 640), 7_940_008),
    ],
    ids=str,
)
def test_parameter_counts(
    architecture: Architecture, input_shape: tuple[int, ...], classes: int, by_hand: int, count: int
):
    with torch.device("meta"):
        network = architecture.build(input_shape, classes)
    assert sum(parameter.numel() for parameter in network.parameters()) == by_hand == count


def test_resnet_has_four_blocks_of_two_relus():
    network = ResNet().build(CIFAR, 10)
    units: list[int] = []
    for layer in network.modules():
        if isinstance(layer, nn.ReLU):
            layer.register_forward_hook(lambda _, __, out: units.append(out[0].numel()))
    network(torch.rand(1, *CIFAR))
    full, half, quarter = 16 * 32 * 32, 32 * 16 * 16, 64 * 8 * 8
    assert units == [full, *[full] * 2, *[full] * 2, *[half] * 2, *[quarter] * 2, 1000]
    assert sum(units) == 107_496


def apply(weights: dict[str, Tensor], path: str, x: Tensor, **kwargs: int) -> Tensor:
    """A convolution of x with the weights at this path."""
    return F.conv2d(x, weights[f"{path}.weight"], weights[f"{path}.bias"], **kwargs)


def norm(weights: dict[str, Tensor], path: str, x: Tensor) -> Tensor:
    """The batch norm at this path, by its running statistics."""
    names = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(weights[f"{path}.{name}"] for name in names))


def warm(network: nn.Module, input_shape: tuple[int, ...]) -> dict[str, Tensor]:
    """The weights of a network whose batch norms are not identities; sets the network to eval mode."""
    network(torch.rand(8, *input_shape, dtype=torch.float64))
    for layer in network.eval().modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    return network.state_dict()


@pytest.mark.parametrize(
    ("architecture", "at", "kernel"), [(ResNet(width=2), 6, 4), (ResNet4B(width=2), 2, 3)], ids=str
)
def test_a_halving_block_by_hand(architecture: Architecture, at: int, kernel: int):
    torch.manual_seed(0)
    network = architecture.build(CIFAR, 10).double()
    x = network[:at](torch.rand(2, *CIFAR, dtype=torch.float64))
    weights = network[at].state_dict()
    assert weights["main.0.weight"].shape[-1] == kernel
    front = F.relu(apply(weights, "main.0", x, stride=2, padding=1))
    back = apply(weights, "main.2", front, padding=1)
    by_hand = F.relu(back + apply(weights, "shortcut.0", x, stride=2))
    torch.testing.assert_close(network[at : at + 2](x), by_hand)


def test_a_block_with_batch_norms_by_hand():
    torch.manual_seed(0)
    network = ResNet2B(width=2, batch_norm=True).build(CIFAR, 10).double()
    warm(network, CIFAR)
    x, weights = torch.rand(2, 2, 16, 16, dtype=torch.float64), network[3].state_dict()
    front = F.relu(norm(weights, "main.1", apply(weights, "main.0", x, stride=2, padding=1)))
    back = norm(weights, "main.4", apply(weights, "main.3", front, padding=1))
    by_hand = F.relu(back + norm(weights, "shortcut.1", apply(weights, "shortcut.0", x, stride=2)))
    torch.testing.assert_close(network[3:5](x), by_hand)


def test_a_block_of_one_shape_adds_its_input_as_it_is():
    block = ResNet2B(width=2).build(CIFAR, 10)[4]
    nn.init.zeros_(block.main[2].weight)
    nn.init.zeros_(block.main[2].bias)
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(block(x), x)


def test_wide_resnet_by_hand():
    torch.manual_seed(0)
    network = WideResNet(widen_factor=2).build(CROP, 7).double()
    weights = warm(network, CROP)
    x = torch.rand(2, *CROP, dtype=torch.float64)
    z = apply(weights, "0", x, padding=1)
    for block, stride in (("1", 1), ("2", 2), ("3", 2)):
        front = apply(weights, f"{block}.main.2", F.relu(norm(weights, f"{block}.main.0", z)), padding=1)
        normed = F.relu(norm(weights, f"{block}.main.3", front))
        back = apply(weights, f"{block}.main.5", normed, stride=stride, padding=1)
        z = back + apply(weights, f"{block}.shortcut.0", z, stride=stride)
    assert z.shape == (2, 128, 14, 14)
    means = F.relu(norm(weights, "4", z)).unflatten(3, (2, 7)).unflatten(2, (2, 7)).mean((3, 5))
    by_hand = F.linear(means.flatten(1), weights["8.weight"], weights["8.bias"])
    torch.testing.assert_close(network(x), by_hand)


@pytest.mark.parametrize(
    ("input_shape", "window", "features"),
    [
        ((3, 56, 56), (7, 7), 64 * 2 * 2),
        ((3, 64, 64), (7, 7), 64 * 2 * 2),  # 16x16 by then: two rows and columns are left over
        ((3, 32, 32), (7, 7), 64),
        ((1, 28, 12), (7, 3), 64),  # 7x3 by then
    ],
)
def test_the_windows_of_wide_resnet_fit_the_image(input_shape, window, features):
    network = WideResNet(widen_factor=1).build(input_shape, 7)
    assert network[6].kernel_size == window
    assert network[8].in_features == features
    assert network(torch.rand(2, *input_shape)).shape == (2, 7)


@pytest.fixture(scope="module")
def published() -> Any:
    """The ONNX file of VNN-COMP's ResNet-2B, in the folder vnncomp next to CTBENCH_DATA."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    if not os.environ.get("CTBENCH_DATA"):
        pytest.skip("CTBENCH_DATA is not set: no vnncomp next to it")
    path = Path(os.environ["CTBENCH_DATA"]).parent / "vnncomp" / "onnx" / "cifar10_resnet_2b.onnx"
    if not path.exists():
        pytest.skip(f"{path} does not exist")
    return onnx.load(path)


def test_resnet_2b_has_the_layers_of_vnncomp(published: Any):
    dims = {tensor.name: tuple(tensor.dims) for tensor in published.graph.initializer}
    expected = []
    for node in published.graph.node:
        if node.op_type == "Conv":
            options = {attribute.name: tuple(attribute.ints) for attribute in node.attribute}
            expected.append((*map(dims.get, node.input[1:]), options["strides"], options["pads"][:2]))
        elif node.op_type == "Gemm":
            expected.append(tuple(map(dims.get, node.input[1:])))
    layers = []
    for layer in ResNet2B().build(CIFAR, 10).modules():
        if isinstance(layer, nn.Conv2d):
            layers.append((layer.weight.shape, layer.bias.shape, layer.stride, layer.padding))
        elif isinstance(layer, nn.Linear):
            layers.append((layer.weight.shape, layer.bias.shape))
    assert len(layers) == 8
    assert layers == expected


def test_resnet_2b_computes_what_that_of_vnncomp_does(published: Any):
    from onnx.numpy_helper import to_array
    from onnx.reference import ReferenceEvaluator

    network = ResNet2B().build(CIFAR, 10)
    arrays = {tensor.name: torch.tensor(to_array(tensor)) for tensor in published.graph.initializer}
    with_weights = [node for node in published.graph.node if node.op_type in ("Conv", "Gemm")]
    weights = [arrays[name] for node in with_weights for name in node.input[1:]]
    network.load_state_dict(dict(zip(network.state_dict(), weights, strict=True)))
    x = torch.rand(1, *CIFAR, generator=torch.Generator().manual_seed(0))
    (logits,) = ReferenceEvaluator(published).run(None, {published.graph.input[0].name: x.numpy()})
    torch.testing.assert_close(network(x), torch.tensor(logits), rtol=1e-4, atol=1e-4)
