"""Spaces: how they are written, and what is refused before anything is trained."""

import re

import pytest

from ctbench.recipes import recipe
from ctbench.results import jsonl
from ctbench.tuning import Choices, Range, Space, read_space, spaces
from ctbench.tuning.space import changed


def test_choices_and_ranges_are_read():
    read = Space.of(["method.ratio=0.1,2/5", "l1=1e-6:1e-4:log", "epochs=5:40", "optimizer.milestones=[3,4],[5]"])
    checked = read.checked(recipe("digits_sabr"))
    assert dict(checked.parameters) == {
        "method.ratio": Choices(("0.1", "2/5")),
        "l1": Range(low=1e-6, high=1e-4, log=True),
        "epochs": Range(low=5, high=40, whole=True),  # because the field holds a whole number
        "optimizer.milestones": Choices(("[3,4]", "[5]")),
    }
    assert read.size is None
    assert Space.of(["l1=0,1", "shi=1,2,3"]).size == 6


def test_a_file_says_the_same(tmp_path):
    file = tmp_path / "space.json"
    jsonl.write_json(file, {"method.ratio": [0.1, "2/5"], "l1": "1e-6:1e-4:log"})
    assert Space.of([str(file)]) == Space.of(["method.ratio=0.1,2/5", "l1=1e-6:1e-4:log"])


def test_a_parameter_of_several_fields_gives_all_of_them_its_value():
    staps = changed(recipe("digits_staps"), {"method.ratio+warmup.ratio": "0.3"})
    assert (staps.method.ratio, staps.warmup.ratio) == (0.3, 0.3)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("method.ration=0.1,0.2", "has no field 'ration'"),
        ("method.ratio=0.1,3", "ratio"),
        ("method.ratio=0.4:0.4", "the range 0.4:0.4 is empty"),
        ("method.ratio=0.5:0.4", "LOW < HIGH"),
        ("method.ratio=0.1:nan", "is empty"),
        ("method.ratio=0.1:x", "'x' is not a number"),
        ("method.ratio=0.1:1:2", "a range is LOW:HIGH or LOW:HIGH:log"),
        ("l1=0:1:log", "a logarithmic range begins above 0"),
        ("l1=-1:1:log", "a logarithmic range begins above 0"),
        ("epochs=20.5:40", "give whole numbers as the ends"),
        ("method.ratio=0.4,0.4", "give different values"),
        ("method.ratio=0.4,2/5", "0.4 and 2/5 are the same value"),
        ("method.ratio=", "is not a part of a space"),
        ("=3", "is not a part of a space"),
        ("threat.eps=0.1,0.2", "threat.eps is the same in all trials"),
        ("shi+seed=1,2", "seed is the same in all trials"),
        ("dataset.name=digits", "dataset.name is the same in all trials"),
        ("ctbench-mnist", "no space is called 'ctbench-mnist': there are ctbench-mnist-0.1"),
        ("no.json", "no.json"),
    ],
)
def test_what_is_not_valid_is_refused(option, expected):
    sabr = recipe("digits_sabr")
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(expected)):
        read_space([option], sabr).checked(sabr)


def test_a_field_is_named_once():
    with pytest.raises(ValueError, match=r"warmup\.ratio is in the space twice"):
        Space.of(["method.ratio+warmup.ratio=0.1,0.2", "warmup.ratio=0.3,0.4"])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[1]", "is not a space"),
        ("{", "is not a JSON file"),
        ('{"l1": 3}', "l1 is 3: give a list"),
        ('{"l1": []}', "'l1'"),
    ],
)
def test_a_file_that_holds_no_space_is_named(tmp_path, content, expected):
    file = tmp_path / "space.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=re.escape(expected)) as error:
        Space.of([str(file)])
    assert str(file) in str(error.value)


def test_combinations_that_are_not_valid_are_refused():
    with pytest.raises(ValueError, match=re.escape("ramp.end is 30")):
        Space.of(["ramp.end=5,30", "epochs=20,40"]).checked(recipe("digits_ibp"))


SETTINGS = {
    "mnist_01": "ctbench-mnist-0.1",
    "mnist_03": "ctbench-mnist-0.3",
    "cifar10_2": "ctbench-cifar10-2",
    "cifar10_8": "ctbench-cifar10-8",
    "tinyimagenet": "ctbench-tinyimagenet-1",
}


def test_the_named_spaces_are_those_of_the_paper():
    assert set(spaces()) == set(SETTINGS.values())
    sabr = read_space(["ctbench-cifar10-2"], recipe("cifar10_2_sabr")).parameters
    assert sabr["l1"].texts == ("1e-6", "2e-6", "3e-6", "5e-6", "1e-5", "2e-5", "5e-5")
    assert sabr["robust_weight"].texts == ("0.7", "0.8", "0.9", "1.0")
    assert sabr["train_eps"].texts == ("2/255", "2.5/255", "3/255")
    assert read_space(["ctbench-mnist-0.1"], recipe("mnist_01_taps")).parameters["method.scale"].texts == tuple(
        "123468"
    )
    assert "method.ratio+warmup.ratio" in read_space(["ctbench-mnist-0.1"], recipe("mnist_01_staps")).parameters
    for setting, alphas in (("mnist_01", "0.01"), ("mnist_03", "0.4"), ("cifar10_8", "0.4"), ("tinyimagenet", "0.01")):
        mtl = read_space([SETTINGS[setting]], recipe(f"{setting}_mtl_ibp")).parameters
        assert (mtl["method.alpha"].texts[0], "train_eps" in mtl) == (alphas, False)


@pytest.mark.parametrize("method", ["pgd", "staps", "mtl_ibp"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_each_value_of_a_named_space_is_valid_in_its_recipes(setting, method):
    chosen = recipe(f"{setting}_{method}")
    assert read_space([SETTINGS[setting]], chosen).checked(chosen).size > 20
