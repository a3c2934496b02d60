"""Test images and counterexamples as PNG pictures within a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ctbench.report.site.subjects import Certified, Pixels, SampleImages
from ctbench.results import SampleRecord, Verdict

MOST = 12  # pictures of a gallery
LARGEST = 1 << 22  # numbers of an image, at most


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture in a page: its data URI, and what it shows."""

    source: str
    alt: str


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """A sample of a gallery."""

    title: str
    facts: tuple[str, ...]
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Samples with their images; `lacking` says why images are not there."""

    title: str
    exhibits: tuple[Exhibit, ...]
    note: str
    lacking: str = ""


def png(pixels: Pixels, alt: str) -> Picture | None:
    """An image [C, H, W] with values in [0, 1] as a picture; None if its channels are not those of an image."""
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or not 0 < pixels.size <= LARGEST:
        return None
    levels = np.rint(255 * np.clip(np.nan_to_num(pixels), 0, 1)).astype(np.uint8)
    image = Image.fromarray(levels[0] if len(levels) == 1 else np.moveaxis(levels, 0, 2))
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return Picture(source=f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}", alt=alt)


def counterexamples(certified: Certified, images: SampleImages) -> Gallery | None:
    """The first falsified samples with stored counterexamples; None if there are none."""
    falsified = [record for record in certified.records if record.verdict is Verdict.FALSIFIED]
    points = {record.index: _stored(certified.files.counterexamples / f"{record.index}.npy") for record in falsified}
    shown = [record for record in falsified if points[record.index] is not None][:MOST]
    if not shown:
        return None
    clean = dict(images.find(shown))
    exhibits = []
    for record in shown:
        point = points[record.index]
        assert point is not None, "only samples with points are shown"
        exhibits.append(_compared(record, clean.get(record.index), point, images))
    return Gallery(
        title="Counterexamples",
        exhibits=tuple(exhibits),
        note=f"{len(shown)} of {len(falsified)} falsified samples: the test image, the counterexample, and their "
        "difference, in which grey is no change and black and white are the largest change.",
        lacking=_lacking(shown, clean, images),
    )


def _compared(record: SampleRecord, clean: Pixels | None, point: Pixels, images: SampleImages) -> Exhibit:
    facts = [f"label {images.class_name(record.label)}", f"found by {record.stage}"]
    pictures = [png(point, f"the counterexample of sample {record.index}")]
    if clean is not None and clean.shape == point.shape:
        change = point - clean
        most = float(np.abs(change).max()) or 1.0
        facts.append(f"largest change {most:.4g}")
        pictures.insert(0, png(clean, f"test image {record.index}, label {record.label}"))
        pictures.append(png(0.5 + 0.5 * change / most, f"the difference of the two, at most {most:.4g}"))
    kept = tuple(picture for picture in pictures if picture is not None)
    return Exhibit(title=f"sample {record.index}", facts=tuple(facts), pictures=kept)


def _stored(path: Path) -> Pixels | None:
    """The point of a file; None if there is no file, or it holds no array of numbers."""
    if not path.is_file():
        return None
    try:
        point: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)  # of a false size, it is refused
        if not np.issubdtype(point.dtype, np.floating) or point.size > LARGEST:
            return None
        return np.array(point, dtype=np.float64)
    except (ValueError, OSError, EOFError):
        return None


def hardest(certified: Certified, images: SampleImages) -> Gallery | None:
    """The samples that are open, then those that took the longest; None if there are no records."""
    right = [record for record in certified.records if record.verdict in (Verdict.UNKNOWN, Verdict.CERTIFIED)]
    if not right:
        return None
    shown = sorted(right, key=_hardness)[:MOST]
    clean = dict(images.find(shown))
    exhibits = [
        Exhibit(
            title=f"sample {record.index}",
            facts=tuple(_facts(record, images)),
            pictures=_only(clean.get(record.index), f"test image {record.index}, label {record.label}"),
        )
        for record in shown
    ]
    note = (
        "Samples that are open come first, then certified ones; in both, those with the lowest bound of their margin."
    )
    return Gallery(title="Hardest samples", exhibits=tuple(exhibits), note=note, lacking=_lacking(shown, clean, images))


def _hardness(record: SampleRecord) -> tuple[bool, float, float]:
    bound = float("-inf") if record.bound is None else record.bound
    return record.verdict is not Verdict.UNKNOWN, bound, -record.seconds


def _facts(record: SampleRecord, images: SampleImages) -> list[str]:
    bound = [] if record.bound is None else [f"margin at least {record.bound:.3g}"]
    took = f"{record.stage}, {record.seconds:.2g} s"
    return [f"label {images.class_name(record.label)}", record.outcome, took, *bound]


def _only(pixels: Pixels | None, alt: str) -> tuple[Picture, ...]:
    picture = None if pixels is None else png(pixels, alt)
    return () if picture is None else (picture,)


def _lacking(shown: Sequence[SampleRecord], clean: dict[int, Pixels], images: SampleImages) -> str:
    """Why images are missing."""
    if images.lacking or all(record.index in clean for record in shown):
        return images.lacking
    return "the test images here are not those of the records"


def sample_gallery(title: str, note: str, records: Sequence[SampleRecord], images: SampleImages, facts: str) -> Gallery:
    """Some samples with their labels."""
    shown = list(records)[:MOST]
    clean = dict(images.find(shown))
    exhibits = tuple(
        Exhibit(
            title=f"sample {record.index}",
            facts=(f"label {images.class_name(record.label)}", facts),
            pictures=_only(clean.get(record.index), f"test image {record.index}, label {record.label}"),
        )
        for record in shown
    )
    return Gallery(title=title, exhibits=exhibits, note=note, lacking=_lacking(shown, clean, images))
