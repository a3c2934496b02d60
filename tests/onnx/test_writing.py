"""Writing: ONNX Runtime, and the network that is read again, compute the same as the written network, for any batch."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench.graph import Op, UnsupportedLayerError, freeze, lower, ops, trace
from ctbench.networks import Normalize
from ctbench.onnx import OnnxError, load_onnx, node_of, save_onnx

SHAPE = (2, 6, 5)


class Function(nn.Module):
    """A module with a function as its forward."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Twice(nn.Module):
    """A layer that is used twice, in parallel."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(60, 60)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.first(F.relu(self.first(x))) + x


class WithToken(nn.Module):
    """Rows with one more row, the same for all samples, like the class token of a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 6, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.token.expand(x.size(0), -1, -1, -1)], 1)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": lambda x: (x / 4).tan(),
    "atan": torch.atan,
    "erf": torch.erf,
    "log": lambda x: (x.abs() + 1).log(),
    "root": lambda x: (x.abs() + 1).sqrt(),
    "square": torch.square,
    "power": lambda x: (x.abs() + 1) ** 1.5,
    "root of what is not negative": lambda x: x.abs().sqrt(),
    "masked softmax": lambda x: x.masked_fill(torch.arange(5, device=x.device) > 3, -math.inf).softmax(-1),
    "threshold": lambda x: F.threshold(x, 0.1, 0.7),
    "adaptive maxima": lambda x: F.adaptive_max_pool2d(x, (4, 2)),
    "entries at places": lambda x: x.take_along_dim(torch.tensor([[[[1, 0]]]]), 3),
    "reciprocal": lambda x: 1 / (x.abs() + 1),
    "softplus": lambda x: F.softplus(x, threshold=100),
    "softsign": F.softsign,
    "hardswish": F.hardswish,
    "mish": F.mish,
    "selu": F.selu,
    "softshrink": F.softshrink,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "floor": torch.floor,
    "fractions cut off": lambda x: (3 * x).trunc(),
    "rounded": lambda x: (3 * x).round(),
    "the greatest entry": lambda x: F.one_hot(x.argmax(2), 6).to(x),
    "sign": lambda x: x.sign() * x,
    "product": lambda x: x * x.flip(1),
    "sums": lambda x: x.cumsum(2),
    "softmax": lambda x: x.softmax(-1),
    "greater than a constant": lambda x: torch.maximum(x, torch.ones(5).double()),
    "between constants": lambda x: x.clamp(-torch.ones(6, 1).double(), torch.ones(5).double() / 2),
}
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "dense": lambda: nn.Sequential(nn.Flatten(), nn.Linear(60, 8), nn.ReLU(), nn.Linear(8, 3, bias=False)),
    "dense, of matrices": lambda: nn.Linear(5, 4),
    "dense, of matrices, no bias": lambda: nn.Linear(5, 4, bias=False),
    "convolution": lambda: nn.Conv2d(2, 4, 3, stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
    "convolution, 1 axis": lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(2, 3, 4, stride=2, padding=1)),
    "convolution, circular": lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular", bias=False),
    "transposed convolution": lambda: nn.ConvTranspose2d(2, 4, (3, 2), 2, 1, (1, 0), 2, True, (2, 1)),
    "normalisation": lambda: Normalize([0.4, 0.5], [0.3, 0.2]),
    "batch norm": lambda: nn.Sequential(nn.BatchNorm2d(2), nn.Flatten(), nn.BatchNorm1d(60)),
    "dropout": lambda: nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(60, 3)),
    "average pooling": lambda: nn.AvgPool2d(3, stride=2, padding=1),
    "average of the image": lambda: nn.AdaptiveAvgPool2d(1),
    "average of uneven parts": lambda: nn.AdaptiveAvgPool2d((4, 2)),
    "mean": lambda: Function(lambda x: x.mean((1, 3))),
    "max pooling": lambda: nn.MaxPool2d(3, stride=2, padding=1),
    "greatest": lambda: Function(lambda x: x.amax(2)),
    "greatest, and GELU": lambda: Function(lambda x: F.gelu(x).amax(2).mean(1)),  # opset 20 has axes as inputs
    "relu": nn.ReLU,
    "leaky relu": lambda: nn.LeakyReLU(0.25),
    "abs": lambda: Function(torch.abs),
    "clamp": lambda: nn.Hardtanh(-0.25, 0.5),
    "clamp below": lambda: Function(lambda x: x.clamp(min=-0.25)),
    "clamp above": lambda: Function(lambda x: x.clamp(max=0.25)),
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "reshape": lambda: Function(lambda x: x.reshape(-1, 6, 10).relu()),
    "identity": nn.Identity,
    "slice": lambda: Function(lambda x: x[:, :, 1:5:2]),
    "permutation": lambda: Function(lambda x: x.permute(0, 3, 1, 2).flatten(1)),
    "zeros around": lambda: nn.ZeroPad2d((1, 2, 0, 1)),
    "ones around": lambda: nn.ConstantPad2d(1, 1.0),
    "sum": lambda: Function(lambda x: x.relu() + x),
    "difference": lambda: Function(lambda x: 2.0 - x.tanh()),
    "concatenation": lambda: Function(lambda x: torch.cat([x, x.relu(), -x], 2)),
    "a layer used twice": Twice,
    "with a constant": WithToken,
    "layer norm": lambda: nn.LayerNorm(5),
    "prelu": lambda: nn.PReLU(2),
    "attention": lambda: nn.Sequential(
        nn.Flatten(2), nn.Linear(30, 4), nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True)
    ),
    "bilinear": lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
    "convolution, 3 axes": lambda: nn.Sequential(nn.Unflatten(1, (1, 2)), nn.Conv3d(1, 2, 2)),
    "transposed convolution, 3 axes": lambda: nn.Sequential(nn.Unflatten(1, (1, 2)), nn.ConvTranspose3d(1, 2, 2)),
    **{name: lambda function=function: Function(function) for name, function in FUNCTIONS.items()},
}


def built(name: str) -> nn.Module:
    """A network in double precision that ends in a vector, with statistics that are not the trivial ones."""
    torch.manual_seed(0)
    model = nn.Sequential(NETWORKS[name](), nn.Flatten()).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            nn.init.normal_(module.weight)
    return model.eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_written_is_computed_and_read_again(name, tmp_path, reference):
    model, path = built(name), tmp_path / "model.onnx"
    x = torch.randn(5, *SHAPE, dtype=torch.float64)
    expected = model(x)
    save_onnx(model, path, SHAPE)
    outputs = reference(path, x.float(), whole=True)
    torch.testing.assert_close(outputs.double(), expected, rtol=1e-5, atol=1e-5)
    again = load_onnx(path)
    assert again.input_shape == SHAPE
    torch.testing.assert_close(again(x.float()).double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(again.double()(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_double_precision_loses_nothing(name, tmp_path):
    model, path = built(name), tmp_path / "model.onnx"
    x = torch.randn(5, *SHAPE, dtype=torch.float64)
    save_onnx(model, path, SHAPE, dtype=torch.float64)
    again = load_onnx(path)
    torch.testing.assert_close(again(x), model(x), rtol=1e-12, atol=1e-12)
    graph, logits = freeze(trace(again, SHAPE), x)
    torch.testing.assert_close(logits, model(x), rtol=1e-12, atol=1e-12)
    assert graph.input_shape == SHAPE


def test_every_op_is_written_by_some_network():
    written = {
        type(node.op)
        for name in NETWORKS
        for node in freeze(trace(built(name), SHAPE), torch.zeros(1, *SHAPE, dtype=torch.float64))[0].nodes
    }
    concrete = {
        kind
        for kind in vars(ops).values()
        if isinstance(kind, type) and issubclass(kind, Op) and not kind.__abstractmethods__
    }
    # the first two are not there any more in a frozen graph, the last in a step of training alone
    assert concrete - written == {ops.BatchNorm, ops.Dropout, ops.ScaledConv2d}


def test_networks_of_others_are_written_as_they_were_read(network, tmp_path, reference):
    model, path = load_onnx(network), tmp_path / "model.onnx"
    torch.manual_seed(0)
    x = torch.rand(3, *model.input_shape)
    save_onnx(model, path, model.input_shape)
    expected = reference(network, x)
    scale = float(expected.abs().max())
    torch.testing.assert_close(reference(path, x, whole=True), expected, rtol=0, atol=1e-4 * scale)
    torch.testing.assert_close(load_onnx(path)(x), expected, rtol=0, atol=1e-4 * scale)


def test_weights_keep_their_names_and_the_module_its_mode(tmp_path):
    model = nn.Sequential(nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU()), nn.Flatten(), nn.Linear(36, 4)).train()
    save_onnx(model, tmp_path / "model.onnx", SHAPE)
    assert all(module.training for module in model.modules())
    again = load_onnx(str(tmp_path / "model.onnx"))
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())


def test_a_file_is_for_old_runtimes_where_it_can_be(tmp_path):
    def opset(model: nn.Module) -> int:
        save_onnx(nn.Sequential(nn.Flatten(), model), tmp_path / "model.onnx", SHAPE)
        return onnx.load(tmp_path / "model.onnx").opset_import[0].version

    assert opset(nn.ReLU()) == 17
    assert opset(nn.GELU()) == 20


@dataclass(frozen=True)
class Cube(Op):
    def __call__(self, *inputs: Tensor) -> Tensor:
        return inputs[0] ** 3

    def shape(self, *inputs: tuple[int, ...]) -> tuple[int, ...]:
        return inputs[0]


class Cubed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x**3


def test_an_op_of_ones_own_is_registered(tmp_path, reference):
    path, x = tmp_path / "model.onnx", torch.randn(2, 4)
    lower.register(Cubed, lambda module, shape: Cube())
    with pytest.raises(UnsupportedLayerError, match=r"'0': the op Cube has no ONNX form.*node_of\.register"):
        save_onnx(nn.Sequential(Cubed()), path, (4,))
    assert not path.exists()
    node_of.register(
        Cube, lambda op, writer: writer.node("Pow", *writer.inputs, writer.constant("exponent", torch.tensor(3.0)))
    )
    save_onnx(nn.Sequential(Cubed()), path, (4,))
    torch.testing.assert_close(reference(path, x, whole=True), x**3)


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.onnx"
    save_onnx(nn.Linear(4, 2), path, (4,))
    before = path.read_bytes()
    with pytest.raises(UnsupportedLayerError):
        save_onnx(nn.Sequential(nn.Hardshrink()), path, (4,))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_what_cannot_be_written(tmp_path):
    model = nn.Linear(4, 2)
    with pytest.raises(OnnxError, match="a folder that exists"):
        save_onnx(model, tmp_path / "missing" / "model.onnx", (4,))
    with pytest.raises(OnnxError, match="a folder that exists"):
        save_onnx(model, tmp_path, (4,))
    with pytest.raises(OnnxError, match=r"dtype is torch\.float16: give"):
        save_onnx(model, tmp_path / "model.onnx", (4,), dtype=torch.float16)
    with pytest.raises(ValueError, match="5"):
        save_onnx(model, tmp_path / "model.onnx", (5,))
