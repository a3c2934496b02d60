"""Finding the files of a data set, and downloading missing ones.

The root folder is the argument, or else the folder that CTBENCH_DATA names, or else the user's cache. A file is looked
up in the data set's folder below the root, then in the root itself. A missing file is downloaded into the data set's
folder. CTBENCH_MIRROR names a base URL to try before the public ones.
"""

import contextlib
import hashlib
import os
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pooch  # type: ignore[import-untyped]
from rich.progress import DownloadColumn, Progress

from ctbench.progress import progress_bars

CHUNK = 1 << 18  # bytes
LABELS = {"sha256": "SHA-256", "md5": "MD5"}

_offline: ContextVar[bool] = ContextVar("_offline", default=False)

pooch.get_logger().setLevel("WARNING")  # its other messages repeat the progress bar and the errors


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file to download: its name, its SHA-256 (if that is not published, its MD5), and the base URLs, best first."""

    name: str
    sha256: str = ""
    md5: str = ""
    mirrors: tuple[str, ...]

    def __post_init__(self) -> None:
        assert self.sha256 or self.md5, f"{self.name} has no checksum"

    @property
    def checksum(self) -> str:
        """The checksum as pooch takes it, e.g. "sha256:..."."""
        return f"sha256:{self.sha256}" if self.sha256 else f"md5:{self.md5}"

    def check(self, path: Path) -> None:
        """Check the checksum of a file. Raises ValueError if it is not the expected one."""
        algorithm, _, expected = self.checksum.partition(":")
        about = path.stat()
        _check(path, algorithm, _digest(path, algorithm, about.st_size, about.st_mtime_ns), expected)

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


@contextmanager
def without_downloads() -> Iterator[None]:
    """A context in which missing files are not downloaded, but raise FileNotFoundError."""
    before = _offline.set(True)
    try:
        yield
    finally:
        _offline.reset(before)


def download(remote: Remote, folder: Path) -> Path:
    """Download a file into a folder. It appears there complete and with the right SHA-256, or not at all.

    Raises:
        ConnectionError: no mirror provided the file; the message gives the reason for each.
        OSError: the folder is not writable.
    """
    if _offline.get():
        raise ConnectionError("nothing is downloaded here")
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
        _check(path, "sha256", _digest_of(path, "sha256"), expected)
    else:
        _check(path, "sha256", hashlib.sha256(content).hexdigest(), expected, unpacked="unpacked ")


def _check(path: Path, algorithm: str, digest: str, expected: str, *, unpacked: str = "") -> None:
    if digest != expected:
        raise ValueError(
            f"{path}: the {unpacked}{LABELS[algorithm]} is {digest}, expected {expected}; "
            "the file is damaged or another one: delete it, and it will be downloaded again"
        )


def _digest_of(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


@lru_cache(maxsize=16)
def _digest(path: Path, algorithm: str, size: int, changed: int) -> str:
    """The digest of a file; a process reads it again only if its size or its time of change is another one."""
    return _digest_of(path, algorithm)


def _retrieve(url: str, remote: Remote, folder: Path) -> Path:
    """Download from one URL, with a progress bar if the output is a terminal."""
    with progress_bars(done=DownloadColumn()) as bars:
        downloader = pooch.HTTPDownloader(progressbar=_Bar(bars, remote.name), chunk_size=CHUNK)
        return Path(pooch.retrieve(url, remote.checksum, remote.name, folder, downloader=downloader))


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
