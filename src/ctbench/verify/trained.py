"""A trained run in place of a network: its recipe says which data and regions, its folder takes the records."""

from __future__ import annotations

from numbers import Real
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from ctbench import zoo
from ctbench.datasets import Data, Dataset
from ctbench.networks import Architecture, Given
from ctbench.regions import Threat
from ctbench.results import RunFolder
from ctbench.results.runs import region_name
from ctbench.verify.records import Records


class HowTrained(Protocol):
    """What certification reads of a recipe."""

    @property
    def dataset(self) -> Dataset: ...
    @property
    def network(self) -> Architecture: ...
    @property
    def threat(self) -> Threat: ...
    @property
    def select(self) -> str: ...


@runtime_checkable
class TrainedRun(Protocol):
    """A network with its recipe and its folder: `ctbench.Run`, or a class of your own."""

    @property
    def model(self) -> nn.Module: ...
    @property
    def recipe(self) -> HowTrained: ...
    @property
    def folder(self) -> RunFolder: ...
    def load_data(self) -> Data: ...


def samples_of(run: TrainedRun, x: Tensor | None, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """Inputs and labels; without them, the test set of the run.

    Raises:
        ValueError: only one of the two is given.
    """
    if (x is None) != (y is None):
        raise ValueError("x and y belong together: give both, or neither for the test set of the run")
    if x is None or y is None:
        return run.load_data().test[:]
    return x, y


def records_of(run: TrainedRun, threat: Threat) -> Records:
    """Records in the folder of a run, under the name that `ctbench certify` uses, and which it can resume.

    Those of a network of the zoo are in a copy of it, in runs/zoo.

    Raises:
        ValueError: the regions have a radius for each feature, so that they have no name.
    """
    if not isinstance(threat.eps, Real):
        raise ValueError(
            "the records of a radius for each feature have no name of their own: give records=Records(path)"
        )
    folder = RunFolder(zoo.working_copy(run.folder.path))
    files = folder.certification(region_name(threat.name, float(threat.eps)))
    return Records(files.records, resume=True, about=about(run.recipe))


def about(recipe: HowTrained) -> dict[str, str]:
    """What the settings of records say about the recipe of a run: the names of its data and its network.

    If the weights were selected by their accuracy on the test images, they also say that.
    """
    network = recipe.network.module.rpartition(".")[2] if isinstance(recipe.network, Given) else recipe.network.name
    selection = {"selected_on": "test"} if recipe.select == "test" else {}
    return {"dataset": recipe.dataset.title, "network": network, **selection}
