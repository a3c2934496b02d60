"""The test images of a run, for pages that show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path

from ctbench.datasets import Data, Dataset
from ctbench.datasets.files import without_downloads
from ctbench.report.site import SampleImages
from ctbench.report.site.subjects import Pixels
from ctbench.results import RunFolder, SampleRecord
from ctbench.training import Recipe
from ctbench.verify.job import Samples


def test_images(folder: RunFolder, root: Path | None) -> SampleImages:
    """The test images of a run; those that are not here are not downloaded.

    Args:
        folder: the run.
        root: the folder of the data sets; None: as in training.
    """
    if not folder.recipe.is_file():
        return SampleImages(lacking="there is no recipe that names them")
    try:
        dataset = Recipe.read(folder.recipe).dataset
    except ValueError:
        return SampleImages(lacking="the recipe cannot be read here")
    try:
        with without_downloads():
            data = _loaded(dataset, root)
    except (ValueError, OSError):
        return SampleImages(
            lacking=f"the data set {dataset.name} is not here (--data, or the variable CTBENCH_DATA, names its folder)"
        )
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
