"""Contract of every architecture, and what the papers fix about each."""

import pytest
import torch
from torch import nn

from ctbench.networks import (
    CNN3,
    CNN5,
    CNN7,
    MLP,
    Architecture,
    CNN7Narrow,
    CNN7TinyImageNet,
    ConvSmall,
    Normalize,
    architectures,
)

ALL = architectures()


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
        "conv-small": ConvSmall,
        "mlp": MLP,
    }
    assert architectures() == expected


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
        {f"{int(k.split('.')[0]) + 1}.{k.split('.')[1]}": v for k, v in plain.state_dict().items()}
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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CNN7(width=0), "cnn7: width is 0, which is no size; give a whole number of 1 or more"),
        (lambda: CNN5(hidden=-3), "cnn5: hidden is -3"),
        (lambda: CNN3(width=1.5), "cnn3: width is 1.5"),
        (lambda: MLP(hidden=(10, 0)), r"mlp: hidden is \(10, 0\)"),
        (lambda: MLP(hidden=[10]), r"mlp: hidden is \[10\], .* or a tuple of them"),
        (lambda: CNN3().build((784,), 10), r"takes images \[C, H, W\], .* shape \(784,\); use an mlp"),
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
            r"convolution 3 has a 4x4 kernel with padding 1 and is given 1x14 pixels .*"
            r"\(of inputs \(1, 2, 28\)\).*use larger images",
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
