"""Finding the files of a data set, and downloading missing ones.

The root folder is the argument, or else the folder that CTBENCH_DATA names, or else the user's cache. A file is looked
up in the data set's folder below the root, then in the root itself. A missing file is downloaded into the data set's
folder. CTBENCH_MIRROR names a base URL to try before the public ones.
"""

import contextlib
import hashlib
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pooch  # type: ignore[import-untyped]
from rich.progress import DownloadColumn, Progress

from ctbench.progress import progress_bars

CHUNK = 1 << 18  # bytes

pooch.get_logger().setLevel("WARNING")  # its other messages repeat the progress bar and the errors


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file to download: its name, its SHA-256, and the base URLs that provide it, best first."""

    name: str
    sha256: str
    mirrors: tuple[str, ...]

    def urls(self) -> list[str]:
        """The URLs to try, in order."""
        own = os.environ.get("CTBENCH_MIRROR")
        return [f"{base.rstrip('/')}/{self.name}" for base in ((own, *self.mirrors) if own else self.mirrors)]


def data_root(root: Path | None) -> Path:
    """The folder with the data: `root`, or else CTBENCH_DATA, or else the user's cache."""
    if root is None:
        root = Path(os.environ.get("CTBENCH_DATA") or pooch.os_cache("ctbench"))
    return root.expanduser()


def find(root: Path, folder: str, names: Sequence[str]) -> Path | None:
    """The first file with one of these names in `root/folder` or in `root`; None if there is no such file."""
    places = (place / name for name in names for place in (root / folder, root))
    return next((path for path in places if path.exists()), None)


def locate(root: Path | None, folder: str, names: Sequence[str], remote: Remote) -> Path:
    """The first file with one of these names, or else `remote`, downloaded into `root/folder`.

    Raises:
        FileNotFoundError: both fail; the message names every folder and mirror that was tried, and says what to do.
    """
    root = data_root(root)
    path = find(root, folder, names)
    if path is not None:
        return path
    try:
        return download(remote, root / folder)
    except OSError as error:
        raise FileNotFoundError(
            f"{' or '.join(names)} is neither in {root / folder} nor in {root}, and {remote.name} could not "
            f"be downloaded: {error}; put it there by hand, or set the data folder, or CTBENCH_DATA, to the folder "
            "that contains it"
        ) from error


def download(remote: Remote, folder: Path) -> Path:
    """Download a file into a folder. It appears there complete and with the right SHA-256, or not at all.

    Raises:
        ConnectionError: no mirror provided the file; the message gives the reason for each.
        OSError: the folder is not writable.
    """
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} is not writable")
    reasons = []
    for url in remote.urls():
        try:
            return _retrieve(url, remote, folder)
        except (OSError, ValueError) as error:  # no connection or a bad answer; or the wrong SHA-256
            reasons.append(f"{url} ({textwrap.shorten(f'{type(error).__name__}: {error}', 300)})")
    if new:
        with contextlib.suppress(OSError):  # another process has put a file there in the meantime
            folder.rmdir()
    raise ConnectionError("; ".join(reasons))


def check_sha256(path: Path, expected: str, *, content: bytes | None = None) -> None:
    """Check the SHA-256 of a file, or of the content unpacked from it.

    Raises:
        ValueError: the SHA-256 is not the expected one.
    """
    if content is None:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    else:
        digest = hashlib.sha256(content).hexdigest()
    if digest != expected:
        unpacked = "" if content is None else "unpacked "
        raise ValueError(
            f"{path}: the {unpacked}SHA-256 is {digest}, expected {expected}; "
            "the file is damaged or another one: delete it, and it will be downloaded again"
        )


def _retrieve(url: str, remote: Remote, folder: Path) -> Path:
    """Download from one URL, with a progress bar if the output is a terminal."""
    with progress_bars(done=DownloadColumn()) as bars:
        downloader = pooch.HTTPDownloader(progressbar=_Bar(bars, remote.name), chunk_size=CHUNK)
        known_hash = f"sha256:{remote.sha256}"
        return Path(pooch.retrieve(url, known_hash, remote.name, folder, downloader=downloader))


class _Bar:
    """A progress bar with the interface that pooch needs: it sets `total`, then calls `update`, `reset`, `close`."""

    def __init__(self, bars: Progress, name: str) -> None:
        self._bars = bars
        self._task = bars.add_task(name, total=None, text="")

    @property
    def total(self) -> float | None:
        """The length of the file in bytes; None if the server does not report it."""
        return self._bars.tasks[self._task].total

    @total.setter
    def total(self, length: int) -> None:
        self._bars.update(self._task, total=length or None)

    def update(self, length: int) -> None:
        """Count bytes that have arrived."""
        self._bars.update(self._task, advance=length)

    def reset(self) -> None:
        """Count from 0 again."""
        self._bars.reset(self._task)

    def close(self) -> None:
        """Do nothing: the bar ends with its `with` block, even if the download fails."""
