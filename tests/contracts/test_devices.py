"""An accelerator, here a simulated one, behaves like a CPU: tensors are on the right device, and numbers agree."""

import copy

import pytest
import torch
from tests import simulated_device
from tests.contracts import conftest as examples
from tests.contracts import ops as op_examples
from tests.contracts import test_attacks, test_curves, test_methods, test_products
from tests.instances import limited
from tests.kinds import ours
from tests.simulated_device import counted, memory_limit
from tests.small import right, small
from tests.stages import BOUNDS
from torch import Tensor, nn

import ctbench
from ctbench.attacks.evaluation import adversarial_accuracy
from ctbench.domains import domains
from ctbench.graph import Affine, freeze, trace
from ctbench.methods import Batch
from ctbench.onnx import load_onnx, save_onnx
from ctbench.regions import Box, threat
from ctbench.specification import cross_entropy_at
from ctbench.training import train
from ctbench.verify import (
    ALPHA_CROWN,
    DEFAULT_STAGES,
    BranchAndBound,
    Falsify,
    InputSplit,
    Milp,
    Records,
    verify_property,
)
from ctbench.vnnlib import robustness

# a network of each kind of layer; the other ones have no op that these lack
NETWORKS = ("cnn", "residual", "moves", "clipped", "maxpool", "transposed", "means", "sigmoids")


def at(device: str, value):
    """The same network, op, region or tensor on a device."""
    if isinstance(value, nn.Module):
        return copy.deepcopy(value).to(device)
    return value.to(device)


def same(there: Tensor, here: Tensor, tolerance: float = 1e-10) -> None:
    assert there.device.type == simulated_device.NAME
    torch.testing.assert_close(there.cpu(), here, rtol=tolerance, atol=tolerance)


def generator(device: str, seed: int = 1) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def test_the_device_mixes_as_cuda_does():
    here, away = torch.arange(3.0), torch.arange(3.0, device="sim")
    same(away + torch.tensor(1.0), here + 1)  # a tensor of no dimension
    same(away[torch.tensor([2, 0])], here[[2, 0]])  # indices
    for mixed in (lambda: away + here, lambda: here[away.long()], lambda: torch.cat([here, away])):
        with pytest.raises((RuntimeError, IndexError), match="device"):
            mixed()
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(2, device="sim", generator=torch.Generator())


def test_the_device_counts_what_is_launched_and_what_waits():
    x = torch.ones(2, 3)
    with counted() as counts:
        y = x.to("sim").t().relu() + 1
        assert (counts.launches, counts.waits, counts.uploads, counts.uploaded_bytes) == (2, 0, 1, 24)
        assert bool(y.sum() > 0)
        assert (counts.launches, counts.waits) == (4, 1)
        y.cpu()
        y[y > 1]
    assert (counts.waits, counts.downloads, counts.downloaded_bytes) == (3, 1, 24)
    y.relu()
    assert counts.launches == 7  # nothing after the end


def test_the_device_has_no_more_memory_than_it_is_given():
    with simulated_device.measured_memory() as most:
        x = torch.zeros(1000, device="sim")
        x.view(10, 100)[0]
        del x
        assert most() == 4000
        with memory_limit(6000):
            first = torch.zeros(1000, device="sim")
            with pytest.raises(torch.OutOfMemoryError):
                torch.zeros(1000, device="sim")
            del first
            torch.zeros(1000, device="sim")


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", op_examples.LAYERS)
def test_affine_ops(name):
    layer, ops, shape = op_examples.build(name)
    torch.manual_seed(1)
    x = torch.rand(2, *shape, dtype=torch.float64)
    head = nn.Linear(layer(x).flatten(1).shape[1], 2).double()  # its weights say where the network is
    model = at("sim", nn.Sequential(layer, nn.Flatten(), head))
    away = freeze(trace(model, shape), at("sim", x))[0]
    for op, node in zip(ops, away.nodes[1:], strict=False):
        y, moved = op(x), node.op
        assert type(op) is type(moved)
        same(moved(at("sim", x)), y)
        if isinstance(op, Affine):
            same(moved.linear(at("sim", x)), op.linear(x))
            same(moved.magnitude(at("sim", x)), op.magnitude(x))
            a = y.unsqueeze(1)
            same(moved.adjoint(at("sim", a)), op.adjoint(a))
            found, expected = moved.offset(at("sim", a)), op.offset(a)
            assert isinstance(found, Tensor) == isinstance(expected, Tensor)
            if isinstance(expected, Tensor):
                same(found, expected)
        x = y


@pytest.mark.parametrize("name", op_examples.ELEMENTWISE)
def test_elementwise_ops(name):
    op = op_examples.ELEMENTWISE[name][0]
    away = op.map(lambda tensor: at("sim", tensor))
    lower = torch.tensor([-3.0, -1.0, -0.5, 0.2, 0.0, -2.0, -1e-3], dtype=torch.float64).unsqueeze(0)
    upper = lower + torch.tensor([1.0, 3.0, 0.0, 1.5, 2.0, 2.0, 1e-3], dtype=torch.float64)
    ends = at("sim", lower), at("sim", upper)
    same(away(ends[0]), op(lower))
    pairs = [(away.slopes(*ends), op.slopes(lower, upper))]
    if name not in ("gelu", "silu"):  # theirs are searched for, in many small steps
        pairs.append((away.tightest_lines(*ends), op.tightest_lines(lower, upper)))
    for found, expected in pairs:
        for one, other in zip(found, expected, strict=True):
            if other is not None:
                same(one, other)
    assert torch.equal(away.exact(*ends).cpu(), op.exact(lower, upper))


@pytest.mark.parametrize("name", op_examples.FUNCTIONS)
def test_affine_ops_of_functions(name):
    op, shape = op_examples.FUNCTIONS[name]
    away, x = op.map(lambda tensor: at("sim", tensor)), torch.rand(2, *shape, dtype=torch.float64)
    y = op(x)
    a = torch.rand(2, 3, *y.shape[1:], dtype=torch.float64)
    pairs = [(away(at("sim", x)), y), (away.magnitude(at("sim", x)), op.magnitude(x))]
    for found, expected in [*pairs, (away.adjoint(at("sim", a)), op.adjoint(a))]:
        same(found, expected)


@pytest.mark.parametrize("name", sorted({*op_examples.CURVES} - {"mish", "gelu with tanh"}))  # these search for slopes
def test_functions_of_one_variable(name):
    op = op_examples.CURVES[name].op
    ends = test_curves.intervals(name, torch.float64, 5)
    away = tuple(at("sim", end) for end in ends)
    slopes = op.slopes(*ends)
    pairs = [(op.image(*away), op.image(*ends)), (op.slopes(*away), slopes)]
    pairs.append((op.lines(*away, *(at("sim", slope) for slope in slopes)), op.lines(*ends, *slopes)))
    for found, expected in pairs:
        for one, other in zip(found, expected, strict=True):
            same(one, other, 1e-9)


@pytest.mark.parametrize(
    ("network", "domain"),
    [
        ("vit", "interval"),
        ("vit", "crown-ibp"),
        ("attention", "zonotope"),
        ("multihead", "crown"),
        ("group norm", "alpha-crown"),
        ("log softmax", "crown"),
    ],
)
def test_networks_with_products(network, domain):
    model, _, x = test_products.build(network)
    options = {"steps": 1} if domain == "alpha-crown" else {}
    away, expected = (
        ctbench.bounds(
            at(device, model), at(device, x), threat("linf", 0.02, clip=None), domain=domain, **options
        ).lower
        for device in ("sim", "cpu")
    )
    same(away.detach(), expected.detach(), 1e-7)


@pytest.mark.parametrize("domain", ["interval", "crown-ibp"])
def test_recurrent_networks(domain):
    """Torch's fused cells do not run on the simulated device, so the graph is moved there."""
    _, graph, x = test_products.build("cells")
    spec, region = test_products.specification(x), threat("linf", 0.02, clip=None).region
    away = graph.detach().map(lambda tensor: at("sim", tensor))
    bounds = ctbench.domains.domain(domain).lower_bounds
    same(bounds(away, region(at("sim", x)), at("sim", spec)), bounds(graph.detach(), region(x), spec), 1e-7)


@pytest.mark.parametrize("name", examples.REGIONS)
def test_regions(name):
    torch.manual_seed(0)
    x = torch.rand(3, *examples.SHAPE, dtype=torch.float64)
    a, gradient = torch.randn(3, 4, *examples.SHAPE).double(), torch.randn(2, *x.shape).double()
    make = examples.REGIONS[name]
    if name in ("linf of each feature", "box"):  # the helper of these makes radii on the CPU
        region = make(x, 0.1)
        away = Box.checked(at("sim", region.lower), at("sim", region.upper))
    else:
        region, away = make(x, 0.1), make(at("sim", x), 0.1)
    same(away.minimum(at("sim", a)), region.minimum(a))
    same(away.hull.lower, region.hull.lower)
    points = region.sample(2, generator("cpu"))
    same(away.sample(2, generator("sim")), points)
    same(away.start(at("sim", x), 2, generator("sim")), region.start(x, 2, generator("cpu")))
    same(away.project(at("sim", 3 * points)), region.project(3 * points))
    same(away.ascend(at("sim", points), at("sim", gradient), 0.5), region.ascend(points, gradient, 0.5))
    chosen = torch.tensor([2, 0])
    same(away.take(at("sim", chosen)).minimum(at("sim", a[chosen])), region.take(chosen).minimum(a[chosen]))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("domain", sorted(ours(domains())))
def test_domains(network, domain):
    case = examples.build(network)
    options = {"steps": 2} if domain == "alpha-crown" else {}
    away = at("sim", case.model)
    bounds = ctbench.margin_bounds(away, at("sim", case.x), at("sim", case.y), eps=0.05, domain=domain, **options)
    expected = ctbench.margin_bounds(case.model, case.x, case.y, eps=0.05, domain=domain, **options)
    same(bounds, expected, 1e-7)
    bounds.sum().backward()
    expected.sum().backward()
    for moved, parameter in zip(away.parameters(), case.model.parameters(), strict=True):
        if parameter.grad is not None:
            same(moved.grad, parameter.grad, 1e-6)


@pytest.mark.parametrize("domain", sorted(ours(domains())))
def test_a_network_without_tensors_lies_where_its_inputs_are(domain):
    torch.manual_seed(0)
    model = nn.Sequential(nn.MaxPool2d(3, stride=2, padding=1), nn.ReLU(), nn.AvgPool2d(2, stride=1), nn.Flatten())
    x = torch.rand(3, 2, 4, 4)
    bounds = ctbench.bounds(model, at("sim", x), eps=0.1, domain=domain)
    same(bounds.lower, ctbench.bounds(model, x, eps=0.1, domain=domain).lower, 1e-6)


def test_verdicts_of_a_network_without_tensors():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.MaxPool2d(3, stride=2, padding=1), nn.ReLU(), nn.Flatten()), torch.rand(8, 1, 3, 3)
    y = model(x).argmax(1)
    stages = limited(DEFAULT_STAGES)  # windows share pixels, so some margins are 0 however small a part of the box is
    found, expected = (ctbench.certify(model, at(where, x), y, eps=0.05, stages=stages) for where in ("sim", "cpu"))
    assert verdicts(found) == verdicts(expected)
    assert "certified" in {record.verdict for record in expected}


@pytest.mark.parametrize("norm", ["l2", "l1", "first-coordinate"])
def test_domains_on_balls(norm):
    case = examples.build("cnn")
    for domain in sorted(ours(domains())):
        options = {"steps": 2} if domain == "alpha-crown" else {}
        bounds = ctbench.bounds(at("sim", case.model), at("sim", case.x), threat(norm, 0.3), domain=domain, **options)
        expected = ctbench.bounds(case.model, case.x, threat(norm, 0.3), domain=domain, **options)
        same(bounds.lower, expected.lower, 1e-7)


@pytest.mark.parametrize("name", sorted(test_attacks.ATTACKS))
def test_attacks_find_the_same_points(name):
    case, attack = examples.build("cnn"), test_attacks.ATTACKS[name]()
    outcomes = []
    for device in ("cpu", "sim"):
        x, y = at(device, case.x), at(device, case.y)
        graph = freeze(trace(at(device, case.model), examples.SHAPE), x)[0].detach()
        region = examples.REGIONS["segments" if name == "line-search" else "linf"](x, 0.1)
        outcomes.append(attack(cross_entropy_at(graph, y), region, x, generator(device)))
    same(outcomes[1], outcomes[0], 1e-6)


@pytest.mark.parametrize("name", test_methods.METHODS)
def test_a_step_of_a_method(name):
    """Its loss and its gradient."""
    case, method, found = examples.build("cnn"), test_methods.example(name), []
    for device in ("cpu", "sim"):
        sample = examples.Case(at(device, case.model), at(device, case.x), at(device, case.y))
        graph, logits = freeze(trace(sample.model, examples.SHAPE), sample.x, training=True)

        def region_at(scale: float, sample: examples.Case = sample):
            return test_methods.around(sample, scale * 0.1, method)

        batch = Batch(sample.x, sample.y, region_at(1.0), logits, generator(device), region_at)
        first = method.prelude(graph, batch)
        loss = method(graph, batch)
        (loss.per_sample.mean() + (0 if first is None else first)).backward()
        gradient = torch.cat([p.grad.flatten() for p in sample.model.parameters() if p.grad is not None])
        found.append((loss.per_sample.detach(), loss.correct, gradient))
    same(found[1][0], found[0][0], 1e-7)
    same(found[1][2], found[0][2], 1e-5)
    assert torch.equal(found[1][1].cpu(), found[0][1])


STAGES = {
    "bounds": BOUNDS,
    "alpha-crown": (ALPHA_CROWN,),
    "falsify": (Falsify(),),
    "branch and bound": (BranchAndBound(),),
    "pairs": (BranchAndBound(pairs=5),),
    "fallback": (BranchAndBound(fallback=Milp(), max_subproblems=1),),
    "input split": (InputSplit(),),
    "integer programs": (Milp(),),
    "default": DEFAULT_STAGES,
}


def verdicts(found) -> list[tuple[int, str, str]]:
    return [(record.index, str(record.verdict), record.reason) for record in found]


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("timeout", [None, 60.0])
def test_stages_give_the_same_verdicts(name, timeout):
    model = small(1)
    x, y = right(model, 12)
    here, away = (
        ctbench.certify(at(device, model), x, y, eps=0.3, stages=STAGES[name], timeout=timeout)
        for device in ("cpu", "sim")
    )
    assert verdicts(away) == verdicts(here)
    assert {str(record.verdict) for record in here} & {"certified", "falsified"}


def test_a_run_on_the_device(tiny, tmp_path):
    recipe = tiny(validation=0.1)
    away, here = (train(recipe, out=tmp_path / device, device=device, quiet=True) for device in ("sim", "cpu"))
    for name, value in here.model.state_dict().items():
        same(away.model.state_dict()[name], value, 1e-3)
    x, y = recipe.dataset.load().test[:8]
    path, options = tmp_path / "found.jsonl", {"eps": 0.02, "stages": BOUNDS, "timeout": None}
    half = ctbench.certify(away.model, x[:4], y[:4], records=Records(path), **options)
    here_too = copy.deepcopy(away.model).cpu()
    whole = ctbench.certify(here_too, x, y, records=Records(path, resume=True), **options)
    assert verdicts(whole)[:4] == verdicts(half)
    assert verdicts(whole) == verdicts(ctbench.certify(away.model, x, y, eps=0.02, stages=BOUNDS, timeout=None))
    attacked = [
        adversarial_accuracy(model, x[:3], y[:3], eps=0.1, attacks=("pgd", "apgd-dlr")).falsified_by
        for model in (away.model, copy.deepcopy(away.model).cpu())
    ]
    assert attacked[0] == attacked[1]


def test_a_run_goes_on_on_another_device(tiny, tmp_path):
    whole = train(tiny(epochs=2), out=tmp_path / "whole", quiet=True)

    def stop(metrics: dict[str, float], model: nn.Module) -> None:
        if metrics["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny(epochs=2), out=tmp_path / "run", device="sim", quiet=True, on_epoch=stop)
    resumed = train(tiny(epochs=2), out=tmp_path / "run", resume=True, quiet=True)
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, rtol=1e-3, atol=1e-3)


def test_onnx_files_and_properties(tmp_path):
    model = small(3)
    x, y = right(model, 4)
    save_onnx(at("sim", model), tmp_path / "net.onnx", (4,))
    loaded = load_onnx(tmp_path / "net.onnx")
    same(at("sim", loaded)(at("sim", x)).detach(), model(x).detach(), 1e-5)
    for eps in (0.01, 0.5):
        prop = robustness(x[0] - eps, x[0] + eps, int(y[0]), 3)
        outcomes = [verify_property(at(device, loaded), prop) for device in ("cpu", "sim")]
        assert outcomes[0].verdict == outcomes[1].verdict
        assert not outcomes[1].reason


def test_less_memory_takes_longer_and_finds_the_same():
    case = examples.build("cnn")
    model, x, y = at("sim", case.model), case.x.repeat(16, 1, 1, 1), case.y.repeat(16)
    away = at("sim", x), at("sim", y)
    with torch.no_grad():
        with simulated_device.measured_memory() as most:
            expected = ctbench.margin_bounds(model, *away, eps=0.05, memory=2**34)
            whole = most()
        with memory_limit(simulated_device.used() + whole // 3):
            same(ctbench.margin_bounds(model, *away, eps=0.05, memory=2**34), expected.cpu())
            with simulated_device.measured_memory() as less:
                same(ctbench.margin_bounds(model, *away, eps=0.05), expected.cpu())
                assert 0 < less() <= whole // 3


@pytest.mark.parametrize(
    "stage", [BranchAndBound(pairs=0, root_steps=0, steps=2), InputSplit()], ids=["branch and bound", "input split"]
)
def test_a_search_goes_on_in_halves(stage, monkeypatch):
    from ctbench.verify import branch_and_bound, input_split

    model, sizes = small(1), []
    x, y = right(model, 12)
    expected = ctbench.certify(model, x, y, eps=0.3, stages=[stage], timeout=None)
    if isinstance(stage, InputSplit):
        place, name, bounded = input_split, "bounded", input_split.bounded
    else:
        place, name, bounded = branch_and_bound.BranchAndBound, "_split", branch_and_bound.BranchAndBound._split

    def short(*arguments: object) -> object:
        part = next(a for a in arguments if hasattr(a, "sample"))
        sizes.append(len(part))
        if len(part) > 4:
            raise torch.OutOfMemoryError("no memory")
        return bounded(*arguments)

    monkeypatch.setattr(place, name, short)
    certification = ctbench.certify(at("sim", model), x, y, eps=0.3, stages=[stage], timeout=None)
    assert verdicts(certification) == verdicts(expected)
    assert max(sizes) > 4
    # the search went on: it did not begin anew for fewer samples
    assert len([size for size in sizes if size > 4]) <= 3


def test_batches_grow_with_free_memory():
    from ctbench import memory_budget

    device = torch.device("sim")
    assert memory_budget.of(torch.device("cpu")) == memory_budget.DEFAULT
    with memory_limit(simulated_device.used() + 2**34):
        assert memory_budget.of(device) == 2**31
        assert memory_budget.grown(16, device) == 128
        assert memory_budget.of(device, 0.5) == 2**33
        held = torch.zeros(2**20, device=device)
        assert memory_budget.of(device, 0.5) == 2**33 - 2**21
        del held
