"""Reading the files inside a folder, a tar (compressed or not) or a zip with one function.

Archives are read directly into memory. Nothing is unpacked to disk, so the names and links inside an
archive cannot reach any file outside it.
"""

import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from lzma import LZMAError
from pathlib import Path, PurePosixPath

Filter = Callable[[PurePosixPath], bool]

DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    LZMAError,
    EOFError,
    OSError,
    NotImplementedError,  # a zip with a compression that zipfile does not support
    RuntimeError,  # an encrypted zip
)


def entries(path: Path, selects: Filter) -> Iterator[tuple[PurePosixPath, bytes]]:
    """The files inside `path` with names that `selects` accepts: (name inside it, content), in their order there.

    Raises:
        ValueError: an archive is damaged, truncated, or of an unknown kind, or a selected entry is a link.
    """
    if path.is_dir():
        yield from _folder(path, selects)
        return
    try:
        yield from _zip(path, selects) if zipfile.is_zipfile(path) else _tar(path, selects)
    except DAMAGE as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())  # on one line
        raise ValueError(
            f"{path} is not a complete tar or zip archive ({reason}); get it again, or unpack it and use the folder"
        ) from error


def _folder(path: Path, selects: Filter) -> Iterator[tuple[PurePosixPath, bytes]]:
    for file in sorted(path.rglob("*")):
        name = PurePosixPath(file.relative_to(path).as_posix())
        if selects(name) and file.is_file():
            yield name, file.read_bytes()


def _zip(path: Path, selects: Filter) -> Iterator[tuple[PurePosixPath, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir() and selects(name := PurePosixPath(member.filename)):
                yield name, archive.read(member)


def _tar(path: Path, selects: Filter) -> Iterator[tuple[PurePosixPath, bytes]]:
    with tarfile.open(path) as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            if member.isdir() or not selects(name):
                continue
            content = archive.extractfile(member) if member.isreg() else None
            if content is None:
                raise ValueError(f"{path}: {name} is a link or a device; pack plain files only")
            yield name, content.read()
        # tarfile reads a damaged or missing header as the end, so a tar truncated between two files looks complete
        assert archive.fileobj is not None
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it ends without an end mark")
        while archive.fileobj.read(1 << 20):  # the checksum of a gzip is at its end
            pass
