"""The test images of a run, for pages that show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path

from ctbench.datasets import Data, Dataset, GivenData
from ctbench.datasets.files import without_downloads
from ctbench.report.site import SampleImages
from ctbench.report.site.subjects import Pixels
from ctbench.results import RunFolder, SampleRecord
from ctbench.training import Recipe
from ctbench.verify.job import Samples


def test_images(folder: RunFolder, source: Path | Data | None) -> SampleImages:
    """The test images of a run; those that are not here are not downloaded.

    Args:
        folder: the run.
        source: the folder of the data sets; None: as in training. Or the data of runs of your own data.
    """
    if not folder.recipe.is_file():
        return SampleImages(lacking="there is no recipe that names them")
    try:
        dataset = Recipe.read(folder.recipe).dataset
    except ValueError:
        return SampleImages(lacking="the recipe cannot be read here")
    if isinstance(dataset, GivenData):
        return _given_images(dataset, source)
    try:
        with without_downloads():
            data = _loaded(dataset, None if isinstance(source, Data) else source)
    except (ValueError, OSError):
        return SampleImages(
            lacking=f"the data set {dataset.name} is not here (--data, or the variable CTBENCH_DATA, names its folder)"
        )
    return _images(data)


def _given_images(dataset: GivenData, source: Path | Data | None) -> SampleImages:
    """The test images of a run of your own data, if these are given and are the same."""
    if not isinstance(source, Data):
        return SampleImages(
            lacking="its data are its user's own (ctbench report --data-from MODULE:FUNCTION gives them)"
        )
    try:
        return _images(dataset.recognized(source))
    except ValueError:
        return SampleImages(lacking="the data that were given (--data-from) are not those of this run")


def _images(data: Data) -> SampleImages:
    return SampleImages(find=partial(_images_of, data), classes=tuple(data.class_names))


@lru_cache(maxsize=1)
def _loaded(dataset: Dataset, root: Path | None) -> Data:
    """The data of the last run; most runs of a report have the same."""
    return dataset.load(root)


def _images_of(data: Data, records: Sequence[SampleRecord]) -> Mapping[int, Pixels]:
    """The test images that have the digests of records, by index."""
    inside = [record for record in records if record.index < len(data.test)]
    if not inside:
        return {}
    indices = [record.index for record in inside]
    samples = Samples(indices, *data.test[indices])
    same = [place for place, record in enumerate(inside) if samples.digest(place) == record.digest]
    return {indices[place]: samples.x[place].double().numpy() for place in same}
