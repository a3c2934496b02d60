"""Reading folders and archives in one way; every kind of damage is noticed."""

import io
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from ctbench.datasets.entries import entries

CONTENTS = {"a/one.txt": b"1", "a/b/two.txt": b"22" * 2000, "three.bin": b"\x00\x01"}


def read(path: Path) -> dict[str, bytes]:
    return {str(name): content for name, content in entries(path, lambda name: True)}


def test_a_folder_and_its_archives_read_alike(tmp_path: Path, folder, zipped, tarred):
    assert read(folder(tmp_path / "folder", CONTENTS)) == CONTENTS
    assert read(zipped(tmp_path / "some.zip", CONTENTS)) == CONTENTS
    assert read(tarred(tmp_path / "some.tar", CONTENTS)) == CONTENTS
    assert read(tarred(tmp_path / "some.tar.gz", CONTENTS)) == CONTENTS


def test_only_what_is_wanted_is_read(tmp_path: Path, folder, zipped, tarred):
    for path in (
        folder(tmp_path / "folder", CONTENTS),
        zipped(tmp_path / "some.zip", CONTENTS),
        tarred(tmp_path / "some.tar.gz", CONTENTS),
    ):
        assert [(str(name), c) for name, c in entries(path, lambda name: name.suffix == ".bin")] == [
            ("three.bin", b"\x00\x01")
        ]


def test_names_that_point_outside_are_only_names(tmp_path: Path, tarred):
    path = tarred(tmp_path / "inner" / "evil.tar", {"../../outside.txt": b"x"})
    assert list(entries(path, lambda name: True)) == [(PurePosixPath("../../outside.txt"), b"x")]
    assert [each.name for each in tmp_path.rglob("*")] == ["inner", "evil.tar"]


def test_a_link_is_refused(tmp_path: Path):
    path = tmp_path / "link.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("link.png")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(ValueError, match=r"link.tar: link.png is a link or a device; pack plain files only"):
        read(path)


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
def test_an_archive_cut_short_anywhere_is_refused(suffix: str, tmp_path: Path, zipped, tarred):
    whole = tmp_path / f"whole{suffix}"
    (zipped if suffix == ".zip" else tarred)(whole, CONTENTS)
    content = whole.read_bytes()
    cut = tmp_path / f"cut{suffix}"
    end = len(content.rstrip(b"\0") if suffix == ".tar" else content)  # a tar may lack zeros at its end
    for length in range(0, end, 256 if suffix == ".tar" else 17):
        cut.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut.* is not a complete tar or zip archive .*; get it again") as error:
            read(cut)
        assert "\n" not in str(error.value)


def test_a_tar_with_a_damaged_header_is_refused(tmp_path: Path, tarred):
    path = tarred(tmp_path / "some.tar", CONTENTS)
    content = bytearray(path.read_bytes())
    content[1024] ^= 0xFF  # the name in the second header, whose checksum is wrong then
    path.write_bytes(content)
    with pytest.raises(ValueError, match="ends without an end mark"):
        read(path)


def test_a_zip_with_damaged_content_is_refused(tmp_path: Path):
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", b"content")
    path.write_bytes(path.read_bytes().replace(b"content", b"CONTENT"))
    with pytest.raises(ValueError, match="BadZipFile: Bad CRC"):
        read(path)


def test_a_tar_of_nothing_is_whole(tmp_path: Path):
    path = tmp_path / "empty.tar"
    with tarfile.open(path, "w", fileobj=io.BytesIO()) as archive, path.open("wb") as file:
        archive.close()
        file.write(archive.fileobj.getvalue())
    assert read(path) == {}
