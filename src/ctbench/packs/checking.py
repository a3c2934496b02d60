"""Check a pack or a run folder: each claim that it makes, looked at again.

What is checked: the digests of all files; that the weights are those of the recipe's network, and that the ONNX file
is the same network; that the data are those that the records are about; that each sample has one record, and in a
search for radii all trials that its bisection asks for; the predictions at the clean inputs, exactly; the
counterexamples, exactly; and a random part of the proofs, made again in double precision.
What is not checked: how the network was trained, how long it took, and records of attacks, analyses and corruptions. An
adversarial accuracy is an upper bound that nothing proves: an attack on unknown samples shows how much lower it is.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ctbench import zoo
from ctbench.datasets import Data
from ctbench.packs import records, searches
from ctbench.packs.again import Again
from ctbench.packs.archive import DATA, MANIFEST, unpack
from ctbench.packs.claims import Claim, ClaimError, claim
from ctbench.packs.digests import about_data
from ctbench.packs.network import is_exported, load, same_as_onnx, weights_of
from ctbench.packs.packing import data_of
from ctbench.packs.subject import Subject
from ctbench.results import RunFolder, jsonl
from ctbench.training import Run

IMAGES = 100  # test images on which an ONNX file is compared with the weights


def check(
    path: str | Path,
    *,
    samples: int = 100,
    seed: int | None = None,
    timeout: float | None = 60.0,
    data: Data | str | Path | None = None,
) -> Iterator[Claim]:
    """Look again at each claim of a pack or a run.

    A false record that is not among the samples that are certified again may stay unseen, so the choice is random. All
    other checks look at each record.

    Args:
        path: a pack (.zip), a run folder, or "zoo:NAME".
        samples: the number of samples of each certification that are certified again; 0 for none.
        seed: of the choice; None draws one.
        timeout: seconds for each of these samples; None for no limit.
        data: the folder of the data sets, or the data of a run of your own data (`Data.of`); None: as in `train`.

    Returns:
        The claims, one after the other, as they are checked.

    Raises:
        FileNotFoundError: there is no such file or folder.
    """
    again = Again(samples=samples, seed=secrets.randbelow(2**31) if seed is None else seed, timeout=timeout)
    place = zoo.located(path)
    if place.is_dir():
        yield from _without_folder(Check(RunFolder(place), again, data).claims(), place)
        return
    with tempfile.TemporaryDirectory(prefix="ctbench-check-") as made:
        folder = Path(made)
        opened = claim(place.name, lambda: _unpacked(place, folder))
        yield opened
        if opened.holds:
            yield claim(DATA, lambda: _has(folder / DATA))
            yield from _without_folder(Check(RunFolder(folder), again, data).claims(), folder)


def _without_folder(claims: Iterator[Claim], folder: Path) -> Iterator[Claim]:
    """The claims with names of files in place of their paths: those of an unpacked pack say nothing to a reader."""
    for found in claims:
        yield replace(found, said=found.said.replace(f"{folder}/", ""))


def _unpacked(path: Path, folder: Path) -> str:
    return f"{unpack(path, folder)} files, each with the SHA-256 in {MANIFEST}"


def _has(path: Path) -> str:
    if not path.is_file():
        raise ClaimError("it is not in the pack, so the pack does not say what its records are about")
    return "the pack says what its records are about"


@dataclass(eq=False)
class Check:
    """The check of a run in a folder."""

    folder: RunFolder
    again: Again
    given: Data | str | Path | None
    run: Run | None = None
    subject: Subject | None = None

    def claims(self) -> Iterator[Claim]:
        """All claims. The ones about records need the network and the data."""
        for about, look in (
            ("files", self._files),
            (self.folder.weights.name, self._weights),
            ("data", self._data),
        ):
            found = claim(about, look)
            yield found
            if not found.holds:
                return
        assert self.subject is not None, "the data were read"
        if self.folder.exported.is_file():
            yield claim(self.folder.exported.name, self._onnx)
        if not (self.folder.certifications() or self.folder.searches()):
            yield Claim("records", True, "there are none: nothing is claimed about the network")
        for files in self.folder.certifications():
            yield from records.claims(files, self._name(files.records), self.subject, self.again)
        for search in self.folder.searches():
            yield from searches.claims(search, self._name(search.records), self.subject, self.again)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder.path).as_posix()

    def _files(self) -> str:
        """Whether the folder is one of a run, without links."""
        self.folder.require()
        links = sorted(path for path in self.folder.path.rglob("*") if path.is_symlink())
        if links:
            raise ClaimError(f"{self._name(links[0])} is a symbolic link: put the file itself there")
        return "a run folder without links"

    def _weights(self) -> str:
        self.run = load(self.folder)
        return weights_of(self.run)

    def _data(self) -> str:
        """Whether the test images are those of the pack; a run folder says nothing except by its records."""
        assert self.run is not None, "the weights were read"
        loaded = data_of(self.run, self.given)
        title = self.run.recipe.dataset.title
        path = self.folder.path / DATA
        if path.is_file():
            said, here = jsonl.read_json(path), about_data(title, loaded)
            if said != here:
                different = [key for key in here if not isinstance(said, dict) or said.get(key) != here[key]]
                raise ClaimError(
                    f"the test images here are not those of the pack: {', '.join(different) or 'more entries'} differs"
                )
        root = None if self.given is None or isinstance(self.given, Data) else Path(self.given)
        self.subject = Subject(self.run, loaded, title, root)
        return f"{len(loaded.test)} test images of {title}"

    def _onnx(self) -> str:
        assert self.subject is not None, "the data were read"
        if is_exported(self.subject.run):
            return "it is itself the network that the records are about, so its logits were compared with no others"
        count = min(IMAGES, len(self.subject.data.test))
        chosen = Again(samples=count, seed=self.again.seed, timeout=None).chosen(range(len(self.subject.data.test)), "")
        return same_as_onnx(self.folder.exported, self.subject.run.model, self.subject.batch(chosen)[0])
