"""Every corruption: its range, its severities, its randomness and its devices; and what each of them does."""

import math

import pytest
import torch
from tests import simulated_device
from tests.kinds import ours
from torch import Tensor

from ctbench.corruptions import SEVERITIES, Corruption, corruption, corruptions
from ctbench.corruptions.base import CHUNK, blurred
from ctbench.corruptions.edges import edges
from ctbench.datasets import Digits
from ctbench.datasets.published_corruptions import MNIST_KINDS

KINDS = ours(corruptions())
RANDOM = sorted(KINDS.keys() - {"brightness", "canny_edges", "scale"})


def pictures(count: int = 6, channels: int = 1, height: int = 28, width: int = 28) -> Tensor:
    """A bright ring on black, with a tilt of colour."""
    rows = torch.linspace(-1, 1, height).view(-1, 1)
    columns = torch.linspace(-1, 1, width).view(1, -1)
    ring = (1 - 5 * (rows.hypot(columns) - 0.55).abs()).clamp(0, 1)
    tilt = torch.linspace(0.7, 1, channels).view(-1, 1, 1)
    return (ring * tilt).expand(count, -1, -1, -1).clone()


def changes(kind: type[Corruption], x: Tensor) -> list[float]:
    """The root mean square of the change, by severity."""
    return [float((kind(severity=severity)(x) - x).pow(2).mean().sqrt()) for severity in SEVERITIES]


def test_the_kinds_are_those_of_mnist_c():
    assert set(KINDS) == set(MNIST_KINDS) - {"identity"}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 28, 28), (3, 32, 32), (3, 64, 40), (2, 8, 8), (1, 4, 5)])
def test_images_of_any_size_stay_images(name, channels, height, width):
    x = pictures(3, channels, height, width)
    for severity in (1, 5):
        changed = corruption(name, severity)(x)
        assert (changed.shape, changed.dtype) == (x.shape, x.dtype)
        assert changed.min() >= 0
        assert changed.max() <= 1
        assert not changed.isnan().any()
    assert not torch.equal(changed, x)


@pytest.mark.parametrize("name", KINDS)
def test_levels_grow(name):
    levels = KINDS[name].levels
    assert list(levels) == sorted(set(levels), reverse=name in ("scale", "shot_noise"))


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"rotate", "scale", "shear", "translate"}))
def test_images_change_more_with_the_severity(name):
    for x in (pictures(64), pictures(64, 3, 32, 32)):
        sizes = changes(KINDS[name], x)
        assert sizes == sorted(sizes), sizes
        assert sizes[0] > 0.01
        assert sizes[4] > 1.15 * sizes[0]


@pytest.mark.parametrize("name", KINDS)
def test_a_seed_decides_the_result(name):
    x, how = pictures(4), corruption(name)
    assert torch.equal(how(x, seed=1), how(x, seed=1))
    assert torch.equal(how(x, seed=1), how(x, seed=2)) == (name not in RANDOM)


@pytest.mark.parametrize("name", RANDOM)
def test_images_of_a_batch_are_corrupted_in_different_ways(name):
    changed = corruption(name)(pictures(8))
    assert len({tuple(image.flatten().tolist()) for image in changed}) > 1


def test_an_image_does_not_depend_on_those_of_other_chunks():
    x, how = pictures(CHUNK + 3), corruption("impulse_noise")
    assert torch.equal(how(x)[:CHUNK], how(x[:CHUNK]))
    assert not torch.equal(how(x)[:3], how(x)[CHUNK:])


@pytest.mark.parametrize("name", KINDS)
def test_every_device_gives_the_same_images(name):
    x = pictures(3, channels=3)
    there = corruption(name)(x.to(simulated_device.NAME))
    assert there.device.type == simulated_device.NAME
    torch.testing.assert_close(there.cpu(), corruption(name)(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", KINDS)
def test_the_type_is_kept(name):
    x = pictures(2)
    torch.testing.assert_close(corruption(name)(x.double()), corruption(name)(x).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.zeros(2, 28, 28), r"shape \[2, 28, 28\]: give images"),
        (torch.zeros(2, 1, 3, 9), "H, W >= 4"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), "x is torch.uint8"),
        (torch.full((1, 1, 8, 8), 1.5), r"pixels lie in \[1.5, 1.5\]: scale them"),
        (torch.full((1, 1, 8, 8), math.nan), "pixels lie in"),
    ],
)
def test_other_inputs_are_refused(x, said):
    with pytest.raises(ValueError, match=said):
        corruption("fog")(x)


def test_other_options_are_refused():
    with pytest.raises(ValueError, match="severity is 6: it must be a whole number from 1 to 5"):
        corruption("fog", 6)
    with pytest.raises(ValueError, match="no corruption is called 'snow'; there are brightness, canny_edges, "):
        corruption("snow")
    with pytest.raises(ValueError, match="seed is -1"):
        corruption("fog")(pictures(), seed=-1)


def test_no_images_stay_no_images():
    assert corruption("fog")(pictures(0)).shape == (0, 1, 28, 28)


# What each of them does


def test_brightness_adds_light():
    x = pictures()
    torch.testing.assert_close(corruption("brightness", 2)(x), (x + 0.2).clamp(max=1))


def test_impulse_noise_hits_its_share_of_pixels_half_black_half_white():
    changed = corruption("impulse_noise", 5)(torch.full((50, 3, 32, 32), 0.5))
    assert float((changed != 0.5).float().mean()) == pytest.approx(0.35, abs=0.01)
    assert float((changed == 1).float().mean()) == pytest.approx(0.175, abs=0.01)
    assert torch.equal(changed[:, 0], changed[:, 2])


def test_shot_noise_has_the_mean_and_variance_of_counts():
    changed = corruption("shot_noise", 1)(torch.full((50, 1, 28, 28), 0.4))
    assert float(changed.mean()) == pytest.approx(0.4, abs=0.005)
    assert float(changed.var()) == pytest.approx(0.4 / 60, rel=0.05)
    assert torch.equal(corruption("shot_noise", 5)(torch.zeros(2, 1, 8, 8)), torch.zeros(2, 1, 8, 8))


def dot(row: int, column: int, size: int = 33) -> Tensor:
    """A blurred white dot on black, in eight equal images."""
    x = torch.zeros(8, 1, size, size)
    x[:, :, row, column] = 1
    x = blurred(x, 1.0)
    return x / x.amax()


def centre(x: Tensor) -> tuple[Tensor, Tensor]:
    """The rows and columns of the centres of mass, from the middle of the images."""
    places = torch.arange(x.shape[-1]) - (x.shape[-1] - 1) / 2
    mass = x.sum((1, 2, 3))
    return (x.sum((1, 3)) * places).sum(1) / mass, (x.sum((1, 2)) * places).sum(1) / mass


def test_rotate_turns_by_its_angle_to_both_sides():
    rows, columns = centre(corruption("rotate", 2)(dot(16, 26)))
    angles = torch.atan2(rows, columns).rad2deg()
    torch.testing.assert_close(angles.abs(), torch.full((8,), 22.0), atol=0.5, rtol=0)
    assert len({float(sign) for sign in angles.sign()}) == 2


def test_scale_moves_towards_the_middle():
    rows, columns = centre(corruption("scale", 3)(dot(16, 26)))
    torch.testing.assert_close(columns, torch.full((8,), 6.5), atol=0.1, rtol=0)
    torch.testing.assert_close(rows, torch.zeros(8), atol=0.1, rtol=0)


def test_shear_moves_rows_by_their_distance_from_the_middle():
    rows, columns = centre(corruption("shear", 3)(dot(24, 16)))
    torch.testing.assert_close(columns.abs(), torch.full((8,), 4.0), atol=0.1, rtol=0)
    torch.testing.assert_close(rows, torch.full((8,), 8.0), atol=0.1, rtol=0)


def test_translate_moves_by_its_distance():
    rows, columns = centre(corruption("translate", 3)(dot(16, 16)))
    torch.testing.assert_close(rows.hypot(columns), torch.full((8,), 0.2 * 33), atol=0.1, rtol=0)


def test_motion_blur_smears_a_dot_into_a_line_of_its_length():
    x = dot(16, 16)
    spread = []
    for image in corruption("motion_blur", 5)(x):
        places = torch.arange(33.0) - 16
        mass = image[0] / image.sum()
        rows, columns = mass.sum(1) @ places**2, mass.sum(0) @ places**2
        spread.append(float(rows + columns))
    variance = (0.48 * 33) ** 2 / 12  # of a uniform line; the dot adds its own
    assert spread == pytest.approx([variance + 2] * 8, rel=0.15)


def test_glass_blur_moves_no_light_far():
    changed = corruption("glass_blur", 1)(dot(16, 16))
    assert float(changed[:, :, :10].max()) < 1e-5
    assert float(changed[:, :, 16, 16].min()) > 0.05


def test_a_stripe_is_inverted_and_the_rest_kept():
    x = torch.full((5, 1, 20, 20), 0.25)
    changed = corruption("stripe", 5)(x)
    assert set(changed.unique().tolist()) == {0.25, 0.75}
    widths = (changed[:, 0, 0] == 0.75).sum(1)
    assert torch.equal(widths, torch.full((5,), 8))
    assert torch.equal(changed[:, 0, 0], changed[:, 0, 19])


def test_a_zigzag_crosses_the_image_and_a_dotted_line_has_gaps():
    black = torch.zeros(20, 1, 32, 32)
    for name, few, many in (("zigzag", 0.05, 0.4), ("dotted_line", 0.01, 0.2)):
        white = (corruption(name, 3)(black) > 0.5).float().mean((1, 2, 3))
        assert (white > few).all()
        assert (white < many).all()


def test_spatter_covers_its_share():
    changed = corruption("spatter", 4)(torch.zeros(30, 1, 32, 32))
    assert float((changed > 0.375).float().mean()) == pytest.approx(0.19, abs=0.01)
    assert float(changed.max()) == pytest.approx(0.75)


def test_fog_is_a_mixture_with_smooth_clouds():
    changed = corruption("fog", 2)(torch.zeros(10, 1, 32, 32)) / 0.42
    assert float(changed.min()) == pytest.approx(0.35, abs=1e-5)
    assert float(changed.max()) == pytest.approx(1, abs=1e-5)
    assert float((changed[..., 1:] - changed[..., :-1]).abs().mean()) < 0.06


def test_edges_of_a_square_are_its_outline():
    x = torch.zeros(1, 1, 32, 32)
    x[:, :, 8:24, 8:24] = 1
    found = edges(x)[0, 0]
    assert found[16, 6:10].sum() == 1  # a line of one pixel
    assert found[6:10, 16].sum() == 1
    assert not found[11:21, 11:21].any()
    assert not found[:6].any()
    assert 50 <= int(found.sum()) <= 70
    assert not edges(torch.full((1, 3, 16, 16), 0.4)).any()
    assert torch.equal(corruption("canny_edges", 5)(x)[0, 0] > 0, found)


def test_corruptions_are_values():
    for name, kind in KINDS.items():
        assert kind.name == name
        assert kind() == corruption(name, 3)
        assert kind(severity=2).level == kind.levels[1]


def test_weak_corruptions_leave_digits_nearer_to_themselves_than_to_most_others():
    x, _ = Digits().load().test[:60]
    for name in sorted(KINDS.keys() - {"translate"}):
        changed = corruption(name, 1)(x)
        distances = torch.cdist(changed.flatten(1), x.flatten(1))
        rank = (distances < distances.diag().unsqueeze(1)).float().mean()
        assert rank < 0.35, (name, float(rank))
