"""Forms on windows are the dense forms, wherever the window lies and whatever it goes through."""

from collections import Counter
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ctbench.domains import Crown, crown
from ctbench.domains.linear_form import Form, LinearForm
from ctbench.domains.relaxations import parallel
from ctbench.domains.window_form import WindowForm
from ctbench.graph import Affine, Lines, freeze, trace
from ctbench.graph.ops import AvgPool2d, Conv2d, Reshape, Scale, Shape, Shift
from ctbench.regions import L2, Box, Linf

SHAPE, BATCH = (3, 9, 8), 2
BOTH = torch.tensor([1.0, -1.0]).double()
EXACT = {"rtol": 1e-11, "atol": 1e-11}


@dataclass
class Random:
    """Tensors of one seed, in double precision."""

    seed: int

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=self.generator)

    def lines(self, *shape: int, parallel: bool, lower_offset: bool) -> Lines:
        low, lower, high, upper = self.normal(4, *shape)
        return Lines(low, lower if lower_offset else None, low if parallel else high, upper)

    def box(self, shape: Shape) -> Box:
        return Box(*self.normal(2, BATCH, *shape).sort(0).values)

    def convolution(self, channels: int, output: int, kernel: tuple[int, int], **sides: object) -> Conv2d:
        groups = sides.pop("groups", 1)
        weight, bias = self.normal(output, channels // groups, *kernel), self.normal(output)
        return Conv2d(weight, bias, groups=groups, **sides)  # type: ignore[arg-type]


def neurons(shape: Shape, signs: Tensor = BOTH) -> tuple[WindowForm, LinearForm]:
    """Every neuron in another order for each sample, and none; and the same written out."""
    size = shape[0] * shape[1] * shape[2]
    index = torch.stack([torch.randperm(size + 1, generator=Random(i).generator) for i in range(BATCH)])
    rows = torch.eye(size + 1, dtype=torch.float64)[index, :size].unsqueeze(1) * signs.view(-1, 1, 1)
    return WindowForm.neurons(index, shape, signs), LinearForm(rows.view(BATCH, -1, *shape), 0.0)


def pixels(shape: Shape, signs: Tensor = BOTH) -> tuple[WindowForm, LinearForm]:
    """Every channel at every other place; and the same written out."""
    plane = shape[1] * shape[2]
    place = torch.arange(0, plane, 2)
    every = torch.eye(shape[0] * plane, dtype=torch.float64).view(shape[0], plane, -1)[:, place].flatten(0, 1)
    rows = (signs.view(-1, 1, 1) * every).view(1, -1, *shape)
    return WindowForm.pixels(place, shape, signs), LinearForm(rows.expand(BATCH, *rows.shape[1:]), 0.0)


STARTS = {"neurons": neurons, "pixels": pixels}


def same(found: Form, expected: LinearForm) -> None:
    dense = found.dense()
    shape = expected.coefficients.shape
    torch.testing.assert_close(dense.coefficients.expand(shape), expected.coefficients, **EXACT)
    zeros = torch.zeros(shape[:2], dtype=torch.float64)
    torch.testing.assert_close(dense.constant + zeros, expected.constant + zeros, **EXACT)
    assert (found.upper_constant is None) == (expected.upper_constant is None)
    if expected.upper_constant is not None:
        torch.testing.assert_close(dense.upper_constant + zeros, expected.upper_constant + zeros, **EXACT)
    assert found.count == shape[1]


def as_tight(found: Form, expected: LinearForm, shape: Shape, seed: int) -> None:
    """Both have the same extremes over a box and over a ball."""
    box = Random(seed).box(shape)
    for region in (box, L2(eps=0.7, clip=None).region(box.center)):
        least = found.minimum(region)
        torch.testing.assert_close(least, expected.minimum(region), **EXACT)
        if found.upper_constant is not None:
            greatest = found.maximum(region)
            torch.testing.assert_close(greatest, expected.maximum(region), **EXACT)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("shape", [SHAPE, (1, 4, 6), (4, 1, 3)])
def test_a_form_starts_at_single_neurons(start, shape):
    for signs in (BOTH, BOTH[:1]):
        found, expected = STARTS[start](shape, signs)
        same(found, expected)
        same(found.with_upper_constant(), expected.with_upper_constant())
        assert found.width == shape[0]
        assert found.size == (1, 1)
        if min(shape[1:]) > 1:
            as_tight(found.with_upper_constant(), expected.with_upper_constant(), shape, seed=0)


# ------------------------------------------------------------------------------------------------- random chains


@st.composite
def side(draw: st.DrawFn, output: int) -> tuple[int, int, int, int, int]:
    """Input size, kernel, stride, padding and dilation along a side with `output` outputs."""
    kernel, stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    reach = dilation * (kernel - 1)
    padding = draw(st.integers(0, reach + 1))
    size = (output - 1) * stride - 2 * padding + reach + 1 + draw(st.integers(0, stride - 1))
    assume(1 <= size <= 16)
    return size, kernel, stride, padding, dilation


@st.composite
def convolutions(draw: st.DrawFn, output: Shape) -> Conv2d:
    """A convolution that makes this shape."""
    channels, height, width = output
    groups = draw(st.sampled_from([1, channels]))
    into = groups * draw(st.integers(1, 2 if groups == 1 else 1))
    (rows, columns) = draw(side(height)), draw(side(width))
    size, kernel, stride, padding, dilation = zip(rows, columns, strict=True)
    random = Random(draw(st.integers(0, 99)))
    op = random.convolution(
        into, channels, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups,
        input_shape=(into, *size),
    )  # fmt: skip
    assert op.shape(op.input_shape) == output
    return op if draw(st.booleans()) else replace(op, bias=None)


@st.composite
def pools(draw: st.DrawFn, output: Shape) -> AvgPool2d:
    kernel, stride = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    padding = draw(st.integers(0, kernel // 2))
    size = [(n - 1) * stride - 2 * padding + kernel for n in output[1:]]
    assume(min(size) >= 1)
    return AvgPool2d((kernel, kernel), (stride, stride), (padding, padding), (output[0], *size))


@st.composite
def pointwise(draw: st.DrawFn, shape: Shape) -> Affine:
    """A scale or a shift of all values, of each channel, or of each entry."""
    random = Random(draw(st.integers(0, 99)))
    several = draw(st.sampled_from([(1, 1, 1), (shape[0], 1, 1), (shape[0], 1, 1), shape]))
    bias = random.normal(*several)
    return draw(st.sampled_from([Shift(bias), Scale(random.normal(*several), bias), Scale(bias[:1, :1, :1], bias)]))


@dataclass
class Pair:
    """A form on windows, and the dense one that must be the same at every step."""

    form: Form
    dense: LinearForm
    shape: Shape

    def through(self, op: Affine) -> "Pair":
        shape = op.input_shape if isinstance(op, Conv2d | AvgPool2d) else self.shape
        return Pair(self.form.through(op), self.dense.through(op), shape)

    def relaxed(self, lines: Lines) -> "Pair":
        return Pair(self.form.relaxed(lines), self.dense.relaxed(lines), self.shape)

    def without_constant(self) -> "Pair":
        return Pair(self.form.without_constant(), self.dense.without_constant(), self.shape)

    def __add__(self, other: "Pair") -> "Pair":
        return Pair(self.form + other.form, self.dense + other.dense, self.shape)


@st.composite
def walks(draw: st.DrawFn) -> list[Pair]:
    """Forms on their way back from the neurons of a small image through layers, relaxations and branches."""
    shape = (draw(st.integers(1, 3)), draw(st.integers(2, 7)), draw(st.integers(2, 7)))
    form, dense = STARTS[draw(st.sampled_from(sorted(STARTS)))](shape, BOTH)
    two_sided = draw(st.booleans())
    pair = (
        Pair(form.with_upper_constant(), dense.with_upper_constant(), shape) if two_sided else Pair(form, dense, shape)
    )
    pairs = [pair]

    def lines(shape: Shape) -> Lines:
        random = Random(draw(st.integers(0, 99)))
        return random.lines(BATCH, *shape, parallel=two_sided, lower_offset=draw(st.booleans()))

    def branches(pair: Pair) -> Pair:
        """The sum of two branches of one size: this convolution, and one with another window or none at all."""
        into, stride, left = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(0, 1))
        size = tuple((n - 1) * stride + 1 + min(left, stride - 1) for n in pair.shape[1:])
        found = []
        for reach in draw(st.sampled_from([(1, 0), (0, 1), (1, 1), (2, 1), (0, 0)])):
            kernel, dilation = (1, 1) if reach == 0 else draw(st.sampled_from([(2 * reach + 1, 1), (3, reach)]))
            op = Random(draw(st.integers(0, 99))).convolution(
                into, pair.shape[0], (kernel, kernel), stride=(stride, stride), padding=(reach, reach),
                dilation=(dilation, dilation), input_shape=(into, *size),
            )  # fmt: skip
            branch = (pair if not found else pair.without_constant()).through(op)
            found.append(branch.relaxed(lines(branch.shape)) if draw(st.booleans()) else branch)
        return found[0] + found[1]

    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["convolution", "convolution", "pool", "pointwise", "relaxation", "branches"]))
        if kind == "convolution":
            pair = pair.through(draw(convolutions(pair.shape)))
        elif kind == "pool":
            pair = pair.through(draw(pools(pair.shape)))
        elif kind == "pointwise":
            pair = pair.through(draw(pointwise(pair.shape)))
        elif kind == "relaxation":
            pair = pair.relaxed(lines(pair.shape))
        else:
            pair = branches(pair)
        pairs.append(pair)
    return pairs


def test_a_window_is_the_dense_form_all_along_a_random_walk():
    seen: Counter[str] = Counter()

    @settings(deadline=None, derandomize=True, max_examples=150)
    @given(walks())
    def check(pairs: list[Pair]) -> None:
        for pair in pairs:
            same(pair.form, pair.dense)
            as_tight(pair.form, pair.dense, pair.shape, seed=len(pairs))
            seen[type(pair.form).__name__] += 1
            if isinstance(pair.form, WindowForm) and pair.form.size != (1, 1):
                rows = pair.form.top, pair.form.top + pair.form.size[0] - 1
                seen["over the edge"] += bool((rows[0] < 0).any() or (rows[1] >= pair.shape[1]).any())
                seen["not clean"] += not pair.form.clean

    check()
    assert min(seen["WindowForm"], seen["LinearForm"], seen["over the edge"]) > 50
    assert seen["not clean"] > 10


# ----------------------------------------------------------------------------------------------- what ops they keep


def test_layers_that_keep_windows():
    random = Random(0)
    form, _ = neurons(SHAPE)
    image = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "input_shape": SHAPE}
    wider = form.through(random.convolution(3, 3, (3, 3), **image))
    assert wider.size == (3, 3)
    kept = [
        Scale(random.normal(3, 1, 1), random.normal(3, 1, 1)),
        Scale(random.normal(1, 1, 1), random.normal(1, 1, 1)),
        Shift(random.normal(1, 1, 1)),
        AvgPool2d((3, 2), (2, 2), (1, 0), (3, 18, 16)),
    ]
    lost = [Scale(random.normal(*SHAPE), random.normal(*SHAPE)), Shift(random.normal(*SHAPE)), Reshape((216,), SHAPE)]
    for op in kept + lost:
        found = wider.through(op)
        assert isinstance(found, WindowForm) == (op in kept)
        same(found, wider.dense().through(op))
    branches = wider + form, form + wider, wider + wider.dense()
    assert [type(sum_) for sum_ in branches] == [WindowForm, WindowForm, LinearForm]
    for found in branches[:2]:
        same(found, wider.dense() + form.dense())
    elsewhere = replace(form, top=form.top + (torch.arange(form.top.shape[1]) % 2))
    same(wider + elsewhere, wider.dense() + elsewhere.dense())  # at no one distance from each other


def test_a_form_between_lines_of_its_own():
    random = Random(3)
    image = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "input_shape": SHAPE}
    form, _ = neurons((2, 9, 8))
    form = form.through(random.convolution(3, 2, (3, 3), **image)).inside()

    def dense(line: Tensor) -> Tensor:
        return replace(form, coefficients=line).dense().coefficients

    for lower_offset in (True, False):
        lines = random.lines(*form.coefficients.shape, parallel=False, lower_offset=lower_offset)
        expected = form.dense().between(Lines(*(None if line is None else dense(line) for line in lines)))
        same(form.between(lines), expected)


def test_inside_clears_what_hangs_over_the_edge():
    image = {"stride": (2, 2), "padding": (2, 1), "dilation": (1, 1), "input_shape": SHAPE}
    form, _ = neurons((2, 6, 4))
    form = form.through(Random(0).convolution(3, 2, (3, 3), **image))
    assert not form.clean
    inside = form.inside()
    rows, columns = (start.unsqueeze(2) + torch.arange(3) for start in (form.top, form.left))
    there = ((rows >= 0) & (rows < 9)).unsqueeze(3) & ((columns >= 0) & (columns < 8)).unsqueeze(2)
    there = there[:, None, :, None].expand(form.coefficients.shape)
    assert not there.all()
    assert torch.equal(inside.coefficients[there], form.coefficients[there])
    assert not inside.coefficients[~there].any()
    assert inside.clean
    assert inside.inside() is inside


def test_a_view_is_cut_out_of_the_image():
    image = Random(1).normal(BATCH, *SHAPE)
    padded = nn.functional.pad(image, (20, 20, 20, 20))
    top, left = torch.tensor([[-1, 7, -9, 0], [3, 3, 12, 8]]), torch.tensor([[0, 6, 2, -8], [3, 5, 0, -1]])
    for size in ((1, 1), (3, 2)):
        for rows in (slice(0, 2), slice(1, 2)):  # places of each sample, and of all samples
            coefficients = torch.zeros(1, 1, 4, 3, *size).double()
            form = WindowForm(coefficients, top[rows], left[rows], SHAPE)
            found = form.view(image)
            assert found.shape == (BATCH, 1, 4, 3, *size)
            for b in range(BATCH):
                for p in range(4):
                    y, x = (int(start[rows][b if len(top[rows]) > 1 else 0, p]) + 20 for start in (top, left))
                    assert torch.equal(found[b, 0, p], padded[b, :, y : y + size[0], x : x + size[1]])


# ------------------------------------------------------------------------------------------------------- in CROWN


@pytest.mark.parametrize("slope", [None, parallel], ids=["adaptive", "parallel"])
def test_crown_uses_windows_and_finds_the_bounds_of_dense_forms(monkeypatch, slope):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 5),
    ).double()
    x = torch.rand(3, 1, 10, 10, dtype=torch.float64)
    graph, _ = freeze(trace(model, (1, 10, 10)), x)
    region, options = Linf(eps=0.05).region(x), {} if slope is None else {"slope": slope}
    windows, relaxed = [], WindowForm.relaxed
    monkeypatch.setattr(WindowForm, "relaxed", lambda form, lines: windows.append(form.size) or relaxed(form, lines))
    few, many = Crown(**options).boxes(graph, region), Crown(pure=True, **options).boxes(graph, region)
    assert set(windows) == {(2, 2), (5, 5), (3, 3)}
    monkeypatch.setattr(WindowForm, "neurons", lambda *args, made=WindowForm.neurons: made(*args).dense())
    monkeypatch.setattr(WindowForm, "pixels", lambda *args, made=WindowForm.pixels: made(*args).dense())
    windows.clear()
    dense = Crown(**options).boxes(graph, region), Crown(pure=True, **options).boxes(graph, region)
    assert not windows
    for found, boxes in zip((few, many), dense, strict=True):
        for box, expected in zip(found, boxes, strict=True):
            torch.testing.assert_close(box.lower, expected.lower, **EXACT)
            torch.testing.assert_close(box.upper, expected.upper, **EXACT)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(1, 1, 3), nn.ReLU(), nn.Conv2d(1, 1, 3, padding=8, dilation=3)],
        [
            nn.Conv2d(1, 1, 3),
            nn.ReLU(),
            nn.Conv2d(1, 1, 1, stride=2),
            nn.ReLU(),
            nn.Conv2d(1, 1, 3, padding=5, dilation=2),
        ],
        [nn.ReLU(), nn.Conv2d(1, 2, 3)],
    ],
)
def test_crown_holds_where_windows_lie_wholly_in_the_padding_and_where_a_relu_comes_first(layers):
    torch.manual_seed(0)
    model = nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)).double()
    x = torch.rand(2, 1, 12, 12, dtype=torch.float64) - 0.5
    model(x)
    graph, _ = freeze(trace(model, (1, 12, 12)), x)
    region = Linf(eps=0.1, clip=None).region(x)
    points = region.sample(200, torch.Generator().manual_seed(0))
    boxes = crown.boxes(graph, region)
    for sample in range(2):
        logits = model(points[:, sample])
        assert (logits >= boxes[-1].lower[sample] - 1e-9).all()
        assert (logits <= boxes[-1].upper[sample] + 1e-9).all()
    assert (boxes[-1].upper - boxes[-1].lower).max() < 10
