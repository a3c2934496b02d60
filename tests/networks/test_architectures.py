"""Contract of every architecture, and what the papers fix about each."""

import pytest
import torch
from tests.kinds import ours
from torch import nn

import ctbench
from ctbench.graph import freeze, trace
from ctbench.networks import (
    CNN3,
    CNN5,
    CNN7,
    MLP,
    Architecture,
    CNN7Narrow,
    CNN7TinyImageNet,
    ConvLarge,
    ConvSmall,
    LayerNormMLP,
    Normalize,
    ResNet,
    ResNet2B,
    ResNet4B,
    ViT,
    WideResNet,
    architectures,
)

ALL = ours(architectures())

# a slim one of each, with a batch norm wherever it can have one, for inputs of the size that it is made for
SLIM = [
    (CNN3(width=2), (1, 28, 28)),
    (CNN5(width=2, hidden=8), (1, 28, 28)),
    (CNN7(width=2, hidden=8), (3, 32, 32)),
    (CNN7Narrow(width=2, hidden=8), (3, 32, 32)),
    (CNN7TinyImageNet(width=2, hidden=8), (3, 64, 64)),
    (ConvLarge(width=2, hidden=8, batch_norm=True), (1, 28, 28)),
    (ConvSmall(width=2, hidden=8, batch_norm=True), (1, 28, 28)),
    (MLP(hidden=(8, 8), batch_norm=True), (1, 28, 28)),
    (ResNet(width=2, hidden=8, batch_norm=True), (3, 32, 32)),
    (ResNet2B(width=2, hidden=8, batch_norm=True), (3, 32, 32)),
    (ResNet4B(width=2, hidden=8, batch_norm=True), (3, 32, 32)),
    (WideResNet(widen_factor=1), (3, 56, 56)),
    (LayerNormMLP(hidden=(8, 8)), (1, 8, 8)),
    (ViT(width=4, hidden=4), (1, 8, 8)),
]


def layer_types(network: nn.Sequential) -> list[str]:
    return [type(layer).__name__ for layer in network]


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_package_is_walked():
    expected = {
        "cnn3": CNN3,
        "cnn5": CNN5,
        "cnn7": CNN7,
        "cnn7-narrow": CNN7Narrow,
        "cnn7-tinyimagenet": CNN7TinyImageNet,
        "conv-large": ConvLarge,
        "conv-small": ConvSmall,
        "layernorm-mlp": LayerNormMLP,
        "mlp": MLP,
        "resnet": ResNet,
        "resnet-2b": ResNet2B,
        "resnet-4b": ResNet4B,
        "vit": ViT,
        "wide-resnet": WideResNet,
    }
    assert expected == ALL


def test_every_architecture_has_a_slim_one():
    assert sorted(architecture.name for architecture, _ in SLIM) == sorted(ALL)


@pytest.mark.parametrize(("architecture", "input_shape"), SLIM, ids=str)
def test_the_graph_of_every_architecture_computes_what_it_does(
    architecture: Architecture, input_shape: tuple[int, ...]
):
    network, x = trained(architecture, input_shape)
    _, logits = freeze(trace(network, input_shape), x)
    torch.testing.assert_close(logits, network(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("architecture", "input_shape"), SLIM, ids=str)
def test_every_architecture_is_bounded(architecture: Architecture, input_shape: tuple[int, ...]):
    network, x = trained(architecture, input_shape)
    lower, upper = ctbench.bounds(network, x, eps=0.01, domain="interval")
    noise = 0.02 * torch.rand(20, *x.shape, dtype=x.dtype) - 0.01
    for logits in map(network, (x + noise).clamp(0, 1)):
        assert (lower < logits).all()
        assert (logits < upper).all()


def trained(architecture: Architecture, input_shape: tuple[int, ...]) -> tuple[nn.Sequential, torch.Tensor]:
    """A network at test time whose batch norms have seen a batch, and other inputs for it."""
    torch.manual_seed(0)
    constants = (0.4,) * input_shape[0]
    network = architecture.build(input_shape, 5, mean=constants, std=constants).double()
    network(torch.rand(16, *input_shape, dtype=torch.float64))
    return network.eval(), torch.rand(3, *input_shape, dtype=torch.float64)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("input_shape", [(1, 28, 28), (3, 32, 24), (1, 8, 8)])
def test_every_architecture_builds_and_trains(name: str, input_shape: tuple[int, ...]):
    torch.manual_seed(0)
    network = ALL[name]().build(input_shape, 7)
    logits = network(torch.rand(2, *input_shape))
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name


@pytest.mark.parametrize("name", ALL)
def test_every_architecture_is_a_value(name: str):
    architecture = ALL[name]()
    assert architecture == ALL[name]()
    assert hash(architecture) == hash(ALL[name]())
    assert eval(repr(architecture)) == architecture


@pytest.mark.parametrize("name", ALL)
def test_normalisation_is_the_first_layer(name: str):
    torch.manual_seed(0)
    plain = ALL[name]().build((3, 16, 16), 5).eval()
    normalised = ALL[name]().build((3, 16, 16), 5, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0)).eval()
    assert layer_types(normalised) == ["Normalize", *layer_types(plain)]
    normalised[1:].load_state_dict(
        {f"{int(k.split('.', 1)[0]) + 1}.{k.split('.', 1)[1]}": v for k, v in plain.state_dict().items()}
    )
    x = torch.rand(4, 3, 16, 16)
    by_hand = (x - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 1.0, 2.0]).view(3, 1, 1)
    torch.testing.assert_close(normalised(x), plain(by_hand))


@pytest.mark.parametrize(
    ("architecture", "input_shape", "classes", "count"),
    [
        (CNN3(), (1, 28, 28), 10, 24_426),
        (CNN5(), (1, 28, 28), 10, 822_106),
        (CNN7(), (1, 28, 28), 10, 13_259_338),
        (CNN7(), (3, 32, 32), 10, 17_192_650),
        (CNN7TinyImageNet(), (3, 64, 64), 200, 17_290_120),
        (ConvSmall(), (1, 28, 28), 10, 166_406),
        (ConvLarge(), (1, 28, 28), 10, 1_974_762),
        (MLP(hidden=(20, 30)), (5,), 3, 5 * 20 + 20 + 20 * 30 + 30 + 30 * 3 + 3),
    ],
    ids=str,
)
def test_parameter_counts(architecture: Architecture, input_shape: tuple[int, ...], classes: int, count: int):
    with torch.device("meta"):
        assert parameters(architecture.build(input_shape, classes)) == count


def test_cnn7_has_the_layers_of_its_paper():
    network = CNN7(width=4, hidden=8).build((1, 28, 28), 10, mean=(0.1307,), std=(0.3081,))
    block = ["Conv2d", "BatchNorm2d", "ReLU"]
    assert layer_types(network) == [
        "Normalize",
        *block * 5,
        "Flatten",
        "Linear",
        "BatchNorm1d",
        "ReLU",
        "Linear",
    ]
    assert len(network) == 21
    convs = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    assert [conv.out_channels for conv in convs] == [4, 4, 8, 8, 8]
    assert [conv.stride for conv in convs] == [(1, 1), (1, 1), (2, 2), (1, 1), (1, 1)]
    assert all(layer.bias is not None for layer in network if isinstance(layer, nn.Conv2d | nn.Linear))


def test_cnn7_narrow_has_the_filters_of_its_paper():
    network = CNN7Narrow().build((3, 32, 32), 10)
    assert [layer.out_channels for layer in network if isinstance(layer, nn.Conv2d)] == [32, 32, 64, 64, 64]
    assert [layer.out_features for layer in network if isinstance(layer, nn.Linear)] == [216, 10]


def test_cnn7_for_tinyimagenet_halves_the_image_twice():
    network = CNN7TinyImageNet(width=2, hidden=4).build((3, 64, 64), 200)
    assert [layer.stride[0] for layer in network if isinstance(layer, nn.Conv2d)] == [1, 1, 2, 1, 2]
    assert next(layer.in_features for layer in network if isinstance(layer, nn.Linear)) == 4 * 16 * 16


def test_modules_without_batch_norm():
    assert layer_types(CNN3(batch_norm=False).build((1, 28, 28), 10)) == [
        "Conv2d",
        "ReLU",
        "Conv2d",
        "ReLU",
        "Flatten",
        "Linear",
    ]
    assert layer_types(MLP(hidden=(), batch_norm=True).build((4,), 2)) == ["Flatten", "Linear"]
    assert layer_types(MLP(hidden=(3,), batch_norm=True).build((4,), 2))[1:4] == [
        "Linear",
        "BatchNorm1d",
        "ReLU",
    ]


def test_conv_small_takes_the_published_weights():
    published = {
        "0.weight": (16, 1, 4, 4),
        "0.bias": (16,),
        "2.weight": (32, 16, 4, 4),
        "2.bias": (32,),
        "5.weight": (100, 1568),
        "5.bias": (100,),
        "7.weight": (10, 100),
        "7.bias": (10,),
    }
    network = ConvSmall().build((1, 28, 28), 10)
    assert {key: tuple(value.shape) for key, value in network.state_dict().items()} == published


def test_conv_large_has_the_layers_of_its_table():
    network = ConvLarge().build((1, 28, 28), 10)
    block = ["Conv2d", "ReLU"]
    assert layer_types(network) == [*block * 4, "Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear"]
    convs = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    assert [conv.out_channels for conv in convs] == [32, 32, 64, 64]
    assert [conv.kernel_size[0] for conv in convs] == [3, 4, 3, 4]
    assert [conv.stride[0] for conv in convs] == [1, 2, 1, 2]
    assert [layer.out_features for layer in network if isinstance(layer, nn.Linear)] == [512, 512, 10]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CNN7(width=0), "cnn7: width is 0, which is not a size; give a whole number of 1 or more"),
        (lambda: CNN5(hidden=-3), "cnn5: hidden is -3"),
        (lambda: CNN3(width=1.5), "cnn3: width is 1.5"),
        (lambda: MLP(hidden=(10, 0)), r"mlp: hidden is \(10, 0\)"),
        (lambda: MLP(hidden=[10]), r"mlp: hidden is \[10\], .* or a tuple of them"),
        (lambda: CNN3().build((784,), 10), r"takes images \[C, H, W\], .* shape \(784,\); use an mlp"),
        (lambda: ResNet().build((784,), 10), r"takes images \[C, H, W\], .* shape \(784,\); use an mlp"),
        (
            lambda: ResNet().build((3, 32, 3), 10),
            "a 4x4 kernel and padding 1 does not fit into its input of 16x1 pixels",
        ),
        (lambda: WideResNet().build((784,), 10), r"takes images \[C, H, W\], .* shape \(784,\); use an mlp"),
        (lambda: WideResNet(widen_factor=0), "wide-resnet: widen_factor is 0"),
        (lambda: MLP().build((1, 0), 10), r"mlp: an input of shape \(1, 0\) is empty"),
        (lambda: MLP().build((), 10), r"mlp: an input of shape \(\) is empty"),
        (lambda: MLP().build((4,), 0), "mlp: cannot tell 0 classes apart"),
        (lambda: MLP().build((4,), 2, mean=(0.5,) * 4), "both mean and std"),
        (
            lambda: MLP().build((4,), 2, mean=(0.5,), std=(1.0,)),
            "mean and std have 1 values .* one per channel, 4",
        ),
        (
            lambda: CNN5().build((1, 2, 28), 10),
            "a convolution with a 4x4 kernel and padding 1 does not fit into its input of 1x14 pixels; use larger",
        ),
    ],
)
def test_errors_say_what_to_do(make, message: str):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_fitting_image_is_never_refused():
    assert CNN5().build((1, 4, 4), 10)(torch.rand(2, 1, 4, 4)).shape == (2, 10)
    assert isinstance(CNN5().build((1, 4, 4), 10, mean=[0.5], std=[0.5])[0], Normalize)


def test_a_transformer_fits_its_images():
    with pytest.raises(ValueError, match="patches of 4x4 do not fill an input of shape"):
        ViT().build((1, 28, 30), 3)
    with pytest.raises(ValueError, match="3 heads do not divide the width 16"):
        ViT(heads=3).build((1, 8, 8), 3)
