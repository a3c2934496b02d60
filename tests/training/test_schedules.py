"""How the radius grows, against the formula of the benchmark, and how other numbers change."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ctbench import attacks
from ctbench.methods.pgd import PGD
from ctbench.training import Recipe
from ctbench.training.schedules import ConstantRamp, LinearRamp, Schedule, SmoothRamp, with_number


def smooth(t: int, a: int, b: int) -> float:
    """The smooth schedule from 0 to 1 between the steps a and b, as CTBench computes it."""
    middle = a + int(0.25 * (b - a))
    if t < a:
        return 0.0
    if t >= b:
        return 1.0
    alpha = 1 / ((b - middle) * 4 * (middle - a) ** 3 + (middle - a) ** 4) if middle > a else 0.0
    if t <= middle:
        return alpha * (t - a) ** 4
    start = alpha * (middle - a) ** 4
    return start + (1 - start) * (t - middle) / (b - middle)


@pytest.mark.parametrize(("epoch", "eps"), [(0, 0), (4, 0.0095), (5, 0.0231), (10, 0.115), (15, 0.208), (20, 0.3)])
def test_the_radii_of_mnist(epoch, eps):
    assert 0.3 * SmoothRamp(end=20).share(epoch * 235, 235) == pytest.approx(eps, abs=5.1e-4 if eps > 0.1 else 5.1e-5)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(start=st.integers(0, 5), width=st.integers(0, 12), per_epoch=st.integers(1, 40), t=st.integers(0, 800))
@example(start=1, width=80, per_epoch=391, t=391 + 20 * 391)
@example(start=0, width=3, per_epoch=1, t=1)  # too short for a first quarter
def test_smooth_is_the_formula(start, width, per_epoch, t):
    share = SmoothRamp(start=start, end=start + width).share(t, per_epoch)
    assert share == pytest.approx(smooth(t, start * per_epoch, (start + width) * per_epoch), abs=1e-12)


def test_smooth_is_continuous_and_its_slope_too():
    ramp, per_epoch = SmoothRamp(start=1, end=81), 1000
    middle, last = 21 * per_epoch, 81 * per_epoch
    shares = [ramp.share(t, per_epoch) for t in (middle - 1, middle, middle + 1)]
    assert shares[1] == pytest.approx(1 / 13)
    assert shares[2] - shares[1] == pytest.approx(shares[1] - shares[0], rel=1e-3)
    assert ramp.share(last - 1, per_epoch) == pytest.approx(1, abs=1e-4)
    assert ramp.share(per_epoch + 1, per_epoch) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kind", [SmoothRamp, LinearRamp, ConstantRamp])
def test_ramps_grow_from_nothing_to_all(kind):
    shares = [kind(start=1, end=4).share(t, 10) for t in range(60)]
    assert shares == sorted(shares)
    assert shares[:11] == [0.0] * 11
    assert shares[40:] == [1.0] * 20


def test_linear_by_hand():
    assert [LinearRamp(start=1, end=3).share(t, 2) for t in range(8)] == pytest.approx([0, 0, 0, 0.25, 0.5, 0.75, 1, 1])


def test_constant_is_nothing_and_then_all():
    assert [ConstantRamp(end=2).share(t, 2) for t in range(6)] == [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("kind", [SmoothRamp, LinearRamp, ConstantRamp])
def test_without_a_ramp_the_radius_is_full_from_the_first_step(kind):
    assert kind().share(0, 10) == 1.0


def test_parts_of_epochs():
    assert LinearRamp(start=0.5, end=1.5).share(10, 10) == pytest.approx(0.5)


@pytest.mark.parametrize(("start", "end"), [(2, 1), (-1, 3), (float("nan"), 1)])
def test_ramps_need_an_order(start, end):
    with pytest.raises(ValueError, match="0 <= start <= end"):
        SmoothRamp(start=start, end=end)


def test_a_schedule_goes_from_one_value_to_the_other():
    schedule = Schedule(path="robust_weight", start_value=1.0, end_value=0.1, ramp=LinearRamp(start=1, end=3))
    assert [schedule.value(step, 2) for step in range(8)] == pytest.approx([1, 1, 1, 0.775, 0.55, 0.325, 0.1, 0.1])
    assert schedule.value(0, 2) == 1.0
    assert schedule.value(6, 2) == 0.1  # not 1.0 + (0.1 - 1.0)


def scheduled(path: str, start: float, end: float, *, last: float = 2.0) -> Schedule:
    return Schedule(path=path, start_value=start, end_value=end, ramp=LinearRamp(end=last))


def test_the_moment_of_a_step_has_the_values_of_then(tiny):
    recipe = tiny(
        method=PGD(attack=attacks.PGD(steps=3)),
        warmup=PGD(attack=attacks.PGD(steps=1)),
        shi=0.0,
        ramp=LinearRamp(start=0.0, end=1.0),
        schedules=(scheduled("method.attack.step_size", 1.0, 0.5), scheduled("robust_weight", 0.0, 0.8)),
    )
    now = recipe.at(1, 2, 4)  # 6 of 8 steps: three quarters
    assert now.recipe.method == PGD(attack=attacks.PGD(steps=3, step_size=0.625))
    assert now.method is now.recipe.method
    assert now.recipe.robust_weight == pytest.approx(0.6)
    assert now.recipe.schedules == ()
    assert (now.epoch, now.number, now.eps, now.growing) == (1, 2, 0.05, False)
    before = recipe.at(0, 1, 4)
    assert before.method == recipe.warmup
    assert before.growing
    assert before.eps == pytest.approx(0.05 / 4)


def test_without_schedules_the_moment_has_the_recipe_itself(tiny):
    recipe = tiny()
    assert recipe.at(1, 0, 6).recipe is recipe
    assert recipe.at(0, 0, 6).method is recipe.method  # no warm-up


def test_a_number_is_replaced_along_its_path(tiny):
    recipe = tiny(method=PGD(), shi=0.0)
    assert with_number(recipe, "optimizer.lr", 0.5).optimizer.lr == 0.5
    assert with_number(recipe, "method.attack.step_size", 0.5).method.attack.step_size == 0.5
    assert recipe == tiny(method=PGD(), shi=0.0)


@pytest.mark.parametrize(
    ("schedules", "message"),
    [
        ([("weight", 0, 1)], "'weight' is not read in every step: a schedule is for a number in method, .*optimizer"),
        ([("threat.eps", 0, 1)], "'threat.eps' is not read in every step: .*the radius has its ramp"),
        (
            [("method.alpha", 0, 1)],
            r"'method.alpha' cannot be 0: PGD \('pgd'\) has no field 'alpha'; its fields are att",
        ),
        ([("method", 0, 1)], "'method' cannot be 0: 'method' of Recipe is not a real number"),
        (
            [("method.attack.steps", 1, 2)],
            r"'steps' of PGD \('pgd'\) is not a real number: only real numbers can be scheduled",
        ),
        ([("method.attack.clean_start", 0, 1)], "'clean_start' of .* is not a real number"),
        ([("robust_weight.x", 0, 1)], "'robust_weight' is 1.0, it has no field 'x'"),
        ([("warmup.alpha", 0, 1)], "'warmup' is None, it has no field 'alpha'"),
        ([("robust_weight", 0.5, 1.5)], r"'robust_weight' cannot be 1.5: robust_weight is 1.5: it is a share"),
        ([("robust_weight", -0.5, 0.5)], r"'robust_weight' cannot be -0.5: robust_weight is -0.5"),
        ([("l1", 0, float("nan"))], r"'l1' cannot be nan: l1 is nan: it must be >= 0"),
        ([("method.attack.step_size", 1, 0)], r"'method.attack.step_size' cannot be 0: step_size is 0"),
        ([("l1", 0, 1), ("l1", 1, 0)], "'l1' has several schedules: give one"),
        ([("l1", 0, 1, 4)], "the ramp of 'l1' ends at 4, after the last of 3 epochs"),
    ],
)
def test_a_schedule_that_cannot_be_is_explained(tiny, schedules, message):
    given = tuple(scheduled(path, start, end, last=last[0] if last else 2.0) for path, start, end, *last in schedules)
    with pytest.raises(ValueError, match=f"schedules: .*{message}"):
        tiny(method=PGD(), shi=0.0, schedules=given)


def test_schedules_are_the_same_after_json(tiny):
    recipe = tiny(schedules=(scheduled("robust_weight", 0, 1), scheduled("shi", 1, 0)))
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.hash != tiny().hash


def test_a_ramp_begins_and_ends_at_the_nearest_step():
    assert 0.29 * 100 < 29  # as a float: cut off, it would be step 28
    assert [ConstantRamp(end=0.29).share(step, 100) for step in (28, 29)] == [0.0, 1.0]
    assert [LinearRamp(start=0.29, end=0.31).share(step, 100) for step in (29, 30, 31)] == [0.0, 0.5, 1.0]
    assert [LinearRamp(start=0.34, end=1.34).share(step, 5) for step in (2, 3, 7)] == [0.0, 0.2, 1.0]  # 1.7 and 6.7
