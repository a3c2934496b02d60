"""Recipes as JSON, their hash, and changes from the command line."""

import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import pytest

import ctbench
from ctbench import attacks
from ctbench.datasets import CIFAR10, MNIST, Augmentation, Digits, Folder
from ctbench.methods import Method
from ctbench.methods.ibp import IBP
from ctbench.methods.pgd import PGD
from ctbench.methods.standard import Standard
from ctbench.networks import CNN3, CNN7, MLP
from ctbench.recipes import recipes
from ctbench.regions import L2, Linf
from ctbench.training import SGD, SWA, Adam, ConstantRamp, LinearRamp, Recipe, Schedule, SmoothRamp, codec

RECIPES = recipes()


def through_json(recipe: Recipe) -> Recipe:
    return Recipe.from_json(json.loads(json.dumps(recipe.to_json())))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_the_same_after_json(name: str):
    recipe = RECIPES[name]()
    again = through_json(recipe)
    assert again == recipe
    assert json.dumps(again.to_json()) == json.dumps(through_json(again).to_json())


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_keeps_its_hash_through_json(name: str):
    recipe = RECIPES[name]()
    assert through_json(recipe).hash == recipe.hash


def test_whole_numbers_in_float_fields_hash_as_floats(tiny):
    whole, real = (
        tiny(ramp=SmoothRamp(start=0, end=2), threat=Linf(eps=1)),
        tiny(ramp=SmoothRamp(start=0.0, end=2.0), threat=Linf(eps=1.0)),
    )
    assert whole == real
    assert whole.hash == real.hash


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": Folder(path="pictures", size=(8, 8), grey=True)},
        {"dataset": CIFAR10(augmentation=Augmentation(flip=True, crop_padding=2))},
        {"network": MLP(hidden=(3, 4, 5), batch_norm=True)},
        {"network": MLP(hidden=())},
        {"method": PGD(attack=attacks.PGD(steps=3, decay_at=(0.5, 0.75), decay=0.1))},
        {"threat": Linf(eps=0.5, clip=None)},
        {"threat": Linf(eps=2.0, clip=(-1.0, 1.0))},
        {"ramp": LinearRamp(start=1.0, end=2.5), "train_eps": 0.07},
        {"optimizer": Adam(lr=1e-3, milestones=(5, 7), decay=0.5, clip_norm=1.0)},
    ],
    ids=str,
)
def test_every_kind_of_value_is_the_same_after_json(tiny, changes):
    recipe = tiny(**changes)
    again = through_json(recipe)
    assert again == recipe
    for field in changes:
        assert type(getattr(again, field)) is type(getattr(recipe, field))


def test_json_names_the_member_beside_its_fields(tiny):
    content = tiny(method=PGD(attack=attacks.PGD(steps=3))).to_json()
    assert content["network"] == {"name": "cnn3", "width": 2, "batch_norm": True}
    assert content["method"]["name"] == "pgd"
    assert content["method"]["attack"]["name"] == "pgd"
    assert content["method"]["attack"]["steps"] == 3


def test_the_hash_ignores_the_name_and_the_source(tiny):
    recipe = tiny()
    assert re.fullmatch("[0-9a-f]{12}", recipe.hash)
    assert replace(recipe, name="another", source="elsewhere").hash == recipe.hash


CHANGED = {
    "dataset": Digits(augmentation=Augmentation(flip=True)),
    "network": CNN3(width=3),
    "threat": Linf(eps=0.06),
    "method": Standard(),
    "warmup": Standard(),
    "train_eps": 0.05,
    "ramp": LinearRamp(start=0.0, end=2.0),
    "normalize": False,
    "robust_weight": 0.5,
    "precision": "bfloat16",
    "shi": 0.25,
    "l1": 1e-6,
    "schedules": (Schedule(path="robust_weight", start_value=0.5, end_value=1.0, ramp=LinearRamp(end=2.0)),),
    "initialization": "kaiming",
    "optimizer": Adam(lr=0.01, clip_norm=9.0),
    "epochs": 4,
    "batch_size": 255,
    "train_samples": 500,
    "accumulate": 2,
    "swa": SWA(start=2.0),
    "precise_bn": False,
    "precise_bn_variance": "pooled",
    "validation": 0.2,
    "select": "best",
    "seed": 1,
}


def test_the_hash_changes_with_every_other_field(tiny):
    recipe = tiny(validation=0.1)
    assert set(CHANGED) == set(recipe.to_json()) - {"name", "source", "published"}
    hashes = {field: replace(recipe, **{field: value}).hash for field, value in CHANGED.items()}
    assert len({recipe.hash, *hashes.values()}) == 1 + len(CHANGED), hashes


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("epochs=5", {"epochs": 5, "ramp": SmoothRamp(start=0.0, end=10 / 3)}),
        ("threat.eps=8/255", {"threat": Linf(eps=8 / 255)}),
        ("train_samples=100", {"train_samples": 100}),
        ("ramp.end=50%", {"ramp": SmoothRamp(start=0.0, end=1.5)}),
        ("optimizer.milestones=[34%, 90%]", {"optimizer": Adam(lr=0.01, milestones=(1, 3))}),
        ("optimizer.lr=0.002", {"optimizer": Adam(lr=0.002)}),
        ("optimizer.lr=1", {"optimizer": Adam(lr=1.0)}),
        ("optimizer=sgd", {"optimizer": SGD()}),
        ("optimizer.milestones=[3, 4]", {"optimizer": Adam(lr=0.01, milestones=(3, 4))}),
        ("method=standard", {"method": Standard()}),
        ("method=pgd", {"method": PGD()}),
        ('method={"name": "pgd", "attack": {"name": "pgd", "steps": 3}}', {"method": PGD(attack=attacks.PGD(steps=3))}),
        ("network=cnn7", {"network": CNN7()}),
        ("network.width=5", {"network": CNN3(width=5)}),
        ("network.batch_norm=false", {"network": CNN3(width=2, batch_norm=False)}),
        ("network.batch_norm=False", {"network": CNN3(width=2, batch_norm=False)}),
        ("dataset=mnist", {"dataset": MNIST()}),
        ("dataset.augmentation.flip=true", {"dataset": Digits(augmentation=Augmentation(flip=True))}),
        ("ramp.start=1", {"ramp": SmoothRamp(start=1, end=2)}),
        ("train_eps=0.07", {"train_eps": 0.07}),
        ("train_eps=1", {"train_eps": 1.0}),
        ("train_eps=null", {"train_eps": None}),
        ("train_eps=None", {"train_eps": None}),
        ("threat.clip=null", {"threat": Linf(eps=0.05, clip=None)}),
        ("threat.clip=[-1, 1.5]", {"threat": Linf(eps=0.05, clip=(-1.0, 1.5))}),
        ("threat.eps=1", {"threat": Linf(eps=1.0)}),
        ("precise_bn=false", {"precise_bn": False}),
        ("initialization=kaiming", {"initialization": "kaiming"}),
        ("name=a=b", {"name": "a=b"}),
        ("warmup=ibp", {"warmup": IBP()}),
        ('warmup={"name": "pgd", "attack": "pgd"}', {"warmup": PGD()}),
        ("swa.start=2", {"swa": SWA(start=2.0)}),
        ('swa={"start": 1, "every": 5}', {"swa": SWA(start=1.0, every=5)}),
        ("accumulate=2", {"accumulate": 2}),
        ("precise_bn_variance=pooled", {"precise_bn_variance": "pooled"}),
        (
            'schedules=[{"path": "l1", "start_value": 0, "end_value": 1, "ramp": {"name": "linear", "end": 2}}]',
            {"schedules": (Schedule(path="l1", start_value=0, end_value=1, ramp=LinearRamp(end=2)),)},
        ),
    ],
)
def test_a_change_replaces_one_field(tiny, change, expected):
    changed = tiny(train_eps=0.04).with_changes([change])
    assert changed == tiny(**({"train_eps": 0.04} | expected))


def test_whole_numbers_become_floats_where_a_float_is_meant(tiny):
    changed = tiny().with_changes(["threat.eps=1", "optimizer.lr=2", "threat.clip=[0, 1]", "ramp.end=1"])
    values = (changed.threat.eps, changed.optimizer.lr, *changed.threat.clip, changed.ramp.end)
    assert [type(value) for value in values] == [float] * 5


def test_later_changes_build_on_earlier_ones(tiny):
    changed = tiny().with_changes(["method=pgd", "method.attack.steps=3", "method.attack.decay_at=[0.5]", "epochs=9"])
    assert changed == replace(
        tiny(), method=PGD(attack=attacks.PGD(steps=3, decay_at=(0.5,))), epochs=9, ramp=SmoothRamp(start=0.0, end=6.0)
    )


def test_no_change_is_the_same_recipe(tiny):
    assert tiny().with_changes([]) == tiny()


def test_changes_leave_the_recipe_as_it_was(tiny):
    recipe = tiny()
    recipe.with_changes(["threat.eps=0.2", "epochs=9"])
    assert recipe == tiny()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("epoch=3", r"'epoch': Recipe has no field 'epoch'; its fields are name, dataset, network, .*epochs, .*source"),
        (
            "optimizer.rate=1",
            r"'optimizer.rate': Adam \('adam'\) has no field 'rate'; its fields are lr, milestones, decay, clip_",
        ),
        ("method.attack.steps=3", r"'method.attack.steps': IBP \('ibp'\) has no field 'attack'"),
        ("network.depth=3", r"'network.depth': CNN3 \('cnn3'\) has no field 'depth'; its fields are width, batch_norm"),
        ("epochs.x=3", r"'epochs.x': 'epochs' is a plain value and has no field 'x'"),
        ("train_eps.x=3", r"'train_eps.x': 'train_eps' is a plain value"),
        ('network={"name": "mlp", "width": 3}', r"'network.width': MLP \('mlp'\) has no field 'width'; .*hidden"),
        ("epochs", r"'epochs' is not a change: write path.to.field=value"),
        ("", r"'' is not a change: write path.to.field=value"),
        ("=3", r"Recipe has no field ''"),
        ("epochs=many", r'epochs is "many": it must be a whole number'),
        ("epochs=5.5", r"epochs is 5.5: it must be a whole number"),
        ("epochs=5.0", r"epochs is 5.0: it must be a whole number"),
        ("epochs=true", r"epochs is true: it must be a whole number"),
        ("epochs=null", r"epochs is null: it must be a whole number"),
        ("optimizer.lr=fast", r'optimizer.lr is "fast": it must be a number'),
        ("optimizer.lr=true", r"optimizer.lr is true: it must be a number"),
        ("precise_bn=1", r"precise_bn is 1: it must be true or false"),
        ("precise_bn=yes", r'precise_bn is "yes": it must be true or false'),
        ("name=[]", r"name is \[\]: it must be text"),
        ("optimizer.milestones=3", r"optimizer.milestones is 3: it must be a list, e.g. \[1, 2\]"),
        ("optimizer.milestones=[1.5]", r"optimizer.milestones is 1.5: it must be a whole number"),
        ("threat.clip=[0]", r"threat.clip is \[0\]: it must be a list of 2 values"),
        ("optimizer=3", r"optimizer is 3: it must be an object with the fields of Optimizer"),
        ("initialization=he", r'initialization is "he": it must be one of shi, kaiming'),
        ("method=magic", r'method is "magic": it must be the name of a method: .*ibp.*pgd.*standard'),
        ("network=vgg", r'network is "vgg": it must be the name of an? architecture: cnn3, cnn5, cnn7, .*mlp'),
        (
            "dataset=imagenet",
            r'dataset is "imagenet": it must be the name of a dataset: cifar10, cifar10-c, corrupted, digits, ',
        ),
        ("ramp=cosine", r'ramp is "cosine": it must be the name of a ramp: constant, linear, smooth'),
        ("method={}", r"method: the object must have a name, one of .*ibp, .*pgd, .*standard"),
        ("dataset=folder", r"dataset: Folder \('folder'\) needs a value for path"),
        ("threat.eps=-0.1", r"threat: eps is -0.1: a radius must be a number >= 0"),
        ("threat.eps=1.5", r"threat: eps is 1.5, wider than the data range \[0, 1\]: eps is in pixel space, so 8/255"),
        ("threat.eps=NaN", r"threat: eps is nan: a radius must be a number >= 0"),
        ("threat.eps=Infinity", r"threat: eps is inf: a radius must be a number >= 0"),
        ("threat.eps=8/0", r'threat.eps is "8/0": it must be a number'),
        ("epochs=8/2", r'epochs is "8/2": it must be a whole number'),
        ("epochs=50%", r'epochs is "50%": it must be a whole number'),
        ("train_samples=0", "train_samples is 0: it must be a number of samples >= 1, or None"),
        ("train_eps=-0.1", r"eps is -0.1: a radius must be a number >= 0"),
        ("train_eps=1.5", r"eps is 1.5, wider than the data range"),
        ("threat.clip=[1, 0]", r"threat: clip is \(1.0, 0.0\): the range of the data must be \(low, high\)"),
        ("epochs=0", r"epochs and batch_size must be >= 1, got 0 and 256"),
        ("robust_weight=1.5", r"robust_weight is 1.5: it is a share, in \[0, 1\]"),
        ("robust_weight=NaN", r"robust_weight is nan: it is a share"),
        ("validation=1", r"validation is 1.0: it is a share of the training set"),
        ("shi=-1", r"shi is -1.0: it must be >= 0"),
        ("seed=-1", r"seed is -1: it must be >= 0"),
        ("optimizer.lr=0", r"optimizer: lr is 0.0: it must be > 0"),
        ('optimizer={"name": "sgd", "momentum": 1}', r"optimizer: momentum is 1.0 and weight_decay 0.0: give"),
        ("optimizer.lr=NaN", r"optimizer: lr is nan: it must be > 0"),
        ("ramp.end=-1", r"ramp: a ramp needs 0 <= start <= end \(in epochs\), got 0.0 and -1.0"),
        ("ramp.start=3", r"ramp: a ramp needs 0 <= start <= end \(in epochs\), got 3.0 and 2.0"),
        ("ramp.end=4", r"ramp.end is 4, after the last of 3 epochs: .* also set ramp.end"),
        ("ramp.end=0", r"shi is 0.5 but is used only while the radius grows: set ramp.end > 0"),
        ("seed=9223372036854775808", r"seed is 9223372036854775808: it must be below 2\^63"),
        ("optimizer.milestones=[9,7]", r"optimizer: milestones are \[9, 7\]: give epochs >= 0 in ascending order"),
        ("accumulate=0", r"accumulate is 0: it must be from 1 to batch_size, 256"),
        ("accumulate=257", r"accumulate is 257: it must be from 1 to batch_size, 256"),
        ("swa.every=3", r"swa: SWA needs a value for start"),
        ("swa.start=3", r"swa.start is 3: the last of 3 epochs begins before it"),
        ("swa.start=-1", r"swa: start is -1.0: it must be an epoch >= 0"),
        ("warmup.attack.steps=3", r"'warmup.attack.steps': there is no warmup: set warmup=NAME first"),
        ("select=first", r'select is "first": it must be one of last, best, test'),
        ("select=best", r"select is 'best' but no images are held out for the choice: set validation"),
        ("precise_bn_variance=median", r"precise_bn_variance is .*: it must be one of mean, pooled"),
        ('schedules=["l1"]', r"schedules"),
        ("network.width=0", r"network: cnn3: width is 0, which is not a size"),
    ],
)
def test_a_change_that_cannot_be_is_explained(tiny, change, message):
    with pytest.raises(ValueError, match=message):
        tiny().with_changes([change])


def test_a_recipe_is_checked_after_all_its_changes(tiny):
    changed = tiny().with_changes(["ramp.start=3", "ramp.end=4", "epochs=4"])  # the first would end before it starts
    assert (changed.ramp.start, changed.ramp.end) == (3, 4)
    with pytest.raises(ValueError, match="'nonsense' is not a change"):
        tiny().with_changes(["epochs=0.5", "nonsense"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["shi=0", "ramp.end=0", "warmup=ibp"], r"warmup is 'ibp' but is used only while the radius grows"),
        (
            ["epochs=3", "ramp.end=2.5", "warmup=ibp"],
            r"warmup is 'ibp' while the radius grows, up to epoch 2.5 of 3: 'ibp' would never train",
        ),
        (
            ["validation=0.1", "select=best", "ramp.end=3"],
            r"the radius grows up to epoch 3 of 3: no whole epoch follows",
        ),
        (["validation=0.1", "select=best", "ramp.end=2.5"], r"up to epoch 2.5 of 3: no whole epoch follows"),
        (["select=test", "ramp.end=2.5"], r"select is 'test', .* up to epoch 2.5 of 3: no whole epoch follows"),
        (["select=test", "swa.start=1"], r"swa ends with the average of many weights, select='test' with .*: drop one"),
        (
            ["select=test", "train_eps=0.04"],
            r"at the radius of the test, 0.05, but training ends at 0.04: set train_eps",
        ),
        (["validation=0.1", "select=best", "swa.start=1"], r"swa ends with the average of many weights, .*: drop one"),
    ],
)
def test_fields_that_do_not_go_together_are_explained(tiny, changes, message):
    with pytest.raises(ValueError, match=message):
        tiny().with_changes(changes)


def test_a_part_that_is_not_there_is_chosen_by_name_and_then_filled(tiny):
    changed = tiny(shi=0.0).with_changes(["warmup=pgd", "warmup.attack.steps=3", "swa.start=1", "swa.every=2"])
    assert changed.warmup == PGD(attack=attacks.PGD(steps=3))
    assert changed.swa == SWA(start=1.0, every=2)
    assert changed.with_changes(["warmup=null", "swa=None"]) == tiny(shi=0.0)


def test_another_ramp_is_chosen_by_name(tiny):
    assert tiny().with_changes(["ramp=linear", "ramp.end=2"]).ramp == LinearRamp(end=2)
    assert tiny(shi=0.0).with_changes(["ramp=constant"]).ramp == ConstantRamp()


def test_a_member_is_chosen_by_name_and_then_filled(tiny):
    changed = tiny().with_changes(["dataset=folder", "dataset.path=pictures", "dataset.augmentation.flip=true"])
    assert changed.dataset == Folder(path="pictures", augmentation=Augmentation(flip=True))
    with pytest.raises(ValueError, match=r"Folder .* needs a value for path"):
        tiny().with_changes(["dataset=folder"])
    deep = tiny().with_changes(["method=pgd", "method.attack.steps=3"])
    assert deep.method == PGD(attack=attacks.PGD(steps=3))


@pytest.mark.parametrize("content", [None, 3, "tiny", [], {}, {"name": "tiny"}])
def test_json_that_is_no_recipe_is_refused(content):
    with pytest.raises(ValueError, match=r"needs a value for|an object with the fields of Recipe"):
        Recipe.from_json(content)


def test_a_field_that_a_recipe_file_lacks_takes_its_default(tiny):
    content = tiny().to_json()
    del content["seed"], content["optimizer"]
    assert Recipe.from_json(content) == tiny(optimizer=Adam())


def test_a_value_without_json_is_refused():
    @dataclass(frozen=True)
    class Odd:
        value: object

    with pytest.raises(ValueError, match="a recipe cannot hold a set"):
        codec.encode(Odd({1}))


def test_a_part_that_cannot_be_read_back_is_refused(tiny):
    @dataclass(frozen=True, kw_only=True)
    class Hidden(SWA):
        """Would be written, hashed and read back as SWA."""

        def taken(self, done: int, steps_per_epoch: int) -> int:
            return 1

    with pytest.raises(ValueError, match="has a part that cannot be read back by its name"):
        _ = tiny(swa=Hidden(start=1)).hash


def test_a_recipe_that_was_written_before_there_were_crops_is_read(tiny):
    content = tiny().to_json()
    assert content["dataset"]["augmentation"].pop("crop") is None
    assert Recipe.from_json(content) == tiny()
    assert Recipe.from_json(content).hash == tiny().hash


def test_the_hash_is_that_of_all_fields_except_those_about_the_recipe(tiny):
    content = tiny().to_json()
    for field in ("name", "source", "published", "train_samples"):  # None, the last one does not count
        del content[field]
    assert tiny().hash == hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
    assert tiny(dataset=Digits(augmentation=Augmentation(crop=6))).hash != tiny().hash


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "cnn3"}, "network is 'cnn3': give a value of a class of ctbench.networks"),
        ({"method": IBP}, "method is <class .*IBP'>: give a value of a class of ctbench.methods"),
        ({"threat": 0.1}, "threat is 0.1: give a value of a class of ctbench.regions"),
        ({"initialization": "abc"}, "initialization is 'abc': choose from shi, kaiming"),
        ({"precision": "half"}, "precision is 'half': choose from float32, tf32, bfloat16"),
        ({"select": "first"}, "select is 'first': choose from last, best, test"),
        (
            {"schedules": Schedule(path="shi", start_value=1.0, end_value=0.0)},
            r"schedules is .*: give a tuple of schedules",
        ),
    ],
)
def test_parts_of_a_wrong_kind_are_refused(tiny, changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


def test_a_field_without_its_decorator_is_refused(tiny):
    class Lacking(Standard):
        name: ClassVar[str] = "lacking"
        alpha: float = 0.5

    with pytest.raises(ValueError, match=r"alpha of Lacking would not be part of the recipe: write @dataclass\(frozen"):
        tiny(method=Lacking()).to_json()


# ------------------------------------------------------------------------------------------------ lengths


def test_another_number_of_epochs_stretches_all_times():
    recipe = replace(ctbench.recipe("mnist_small_ibp"), swa=SWA(start=8.0))
    assert (recipe.epochs, recipe.ramp.end, recipe.optimizer.milestones) == (12, 6, (9, 11))
    longer = recipe.with_epochs(30)
    assert (longer.epochs, longer.ramp.end, longer.optimizer.milestones) == (30, 15.0, (22, 28))
    assert longer.swa.start == 20.0
    assert longer.with_epochs(12).ramp == recipe.ramp
    kept = recipe.with_changes(["epochs=30", "ramp.end=6", "optimizer.milestones=[25,28]"])
    assert (kept.ramp.end, kept.optimizer.milestones, kept.swa.start) == (6.0, (25, 28), 20.0)


def test_schedules_are_stretched_and_milestones_stay_apart():
    recipe = ctbench.recipe("digits_colt")
    assert recipe.with_epochs(4).schedules[0].ramp.end == 4.0
    assert recipe.with_epochs(4).optimizer.milestones == (3, 4)
    assert recipe.with_epochs(1).optimizer.milestones == (1, 2)


def test_the_hash_of_a_recipe_on_all_samples_is_that_of_before(tiny):
    recipe = tiny()
    content = {key: value for key, value in recipe.to_json().items() if key != "train_samples"}
    assert Recipe.from_json(content) == recipe
    assert replace(recipe, train_samples=5).hash != recipe.hash


def test_a_part_that_is_named_after_its_fields_does_not_undo_them():
    recipe = ctbench.recipe("digits_ibp").with_changes(
        ["method.ratio=0.9", "threat.eps=0.2", "threat=l2", "method=sabr"]
    )
    assert (recipe.method.ratio, recipe.threat) == (0.9, L2(eps=0.2))


@dataclass(frozen=True, kw_only=True)
class OfSeveralTypes:
    """Fields of several types, as a method of a user may have them."""

    power: int | str = 1
    size: float | int = 0.5
    blocks: tuple[int, ...] | int | None = None
    inner: Method | str = "none"
    share: Literal["auto"] | float = "auto"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("power=3", OfSeveralTypes(power=3)),
        ("power=max", OfSeveralTypes(power="max")),
        ("size=2", OfSeveralTypes(size=2)),
        ("size=8/255", OfSeveralTypes(size=8 / 255)),
        ("blocks=[1, 2]", OfSeveralTypes(blocks=(1, 2))),
        ("blocks=4", OfSeveralTypes(blocks=4)),
        ("blocks=null", OfSeveralTypes()),
        ("inner=ibp", OfSeveralTypes(inner=IBP())),
        ("inner=other", OfSeveralTypes(inner="other")),
        ("share=1", OfSeveralTypes(share=1.0)),
        ("share=auto", OfSeveralTypes()),
    ],
)
def test_a_field_may_have_several_types(change, expected):
    value = codec.with_changes(OfSeveralTypes(), [change])
    assert value == expected
    again = codec.decode(OfSeveralTypes, json.loads(json.dumps(codec.encode(value))))
    assert again == value
    for name in ("power", "size", "blocks", "inner", "share"):
        assert type(getattr(again, name)) is type(getattr(value, name)) is type(getattr(expected, name))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("power=1.5", "power is 1.5: it must be a whole number or text"),
        ("blocks=a", 'blocks is "a": it must be a list or a whole number'),
        ("share=max", 'share is "max": it must be one of auto or a number'),
        ("power.x=1", "'power' is a plain value and has no field 'x'"),
        ('inner={"name": "sabr", "ratio": "a"}', 'inner.ratio is "a": it must be a number'),
    ],
)
def test_a_value_of_none_of_the_types_is_one_error(change, expected):
    with pytest.raises(ValueError, match=re.escape(expected)):
        codec.with_changes(OfSeveralTypes(), [change])
