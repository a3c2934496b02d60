"""Finding files, and downloading them from a server on this machine."""

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pooch
import pytest

from ctbench.datasets import files
from ctbench.datasets.files import Remote, check_sha256, data_root, download, find, locate

CONTENT = bytes(range(256)) * 4096  # longer than one chunk
SHA256 = hashlib.sha256(CONTENT).hexdigest()
CLOSED = "http://127.0.0.1:9"  # nobody listens on this port


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without writing a log."""

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A server with good/data.bin and bad/data.bin, which has another content."""
    for folder, content in (("good", CONTENT), ("bad", b"something else")):
        (tmp_path / "served" / folder).mkdir(parents=True)
        (tmp_path / "served" / folder / "data.bin").write_bytes(content)
    handler = partial(Quiet, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def remote(*mirrors: str) -> Remote:
    return Remote(name="data.bin", sha256=SHA256, mirrors=mirrors)


def test_the_root_is_the_one_given_or_ctbench_data_or_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("CTBENCH_DATA", "/named/by/variable")
    assert data_root(tmp_path) == tmp_path
    assert data_root(None) == Path("/named/by/variable")
    monkeypatch.setenv("CTBENCH_DATA", "~/mine")
    assert data_root(None) == Path.home() / "mine"
    for unset in ("", None):
        monkeypatch.delenv("CTBENCH_DATA") if unset is None else monkeypatch.setenv("CTBENCH_DATA", unset)
        assert data_root(None) == Path(pooch.os_cache("ctbench"))


def test_names_come_before_places(tmp_path: Path):
    assert find(tmp_path, "set", ("a", "b")) is None
    (tmp_path / "set").mkdir()
    for path in ("b", "set/b", "a", "set/a"):
        (tmp_path / path).touch()
        assert find(tmp_path, "set", ("a", "b")) == tmp_path / path


def test_a_file_that_is_there_is_not_downloaded(tmp_path: Path):
    (tmp_path / "data.bin").write_bytes(b"mine")
    assert locate(tmp_path, "set", ("data.bin",), remote()) == tmp_path / "data.bin"


def test_a_missing_file_is_downloaded_past_broken_mirrors(server: str, tmp_path: Path):
    mirrors = (CLOSED, f"{server}/nowhere", f"{server}/bad", f"{server}/good/")
    path = locate(tmp_path / "root", "set", ("data.bin",), remote(*mirrors))
    assert path == tmp_path / "root" / "set" / "data.bin"
    assert path.read_bytes() == CONTENT
    assert [each.name for each in path.parent.iterdir()] == ["data.bin"], "a temporary file remains"


def test_ctbench_mirror_is_asked_first(monkeypatch: pytest.MonkeyPatch, server: str, tmp_path: Path):
    monkeypatch.setenv("CTBENCH_MIRROR", f"{server}/good")
    assert remote("https://elsewhere/x").urls() == [f"{server}/good/data.bin", "https://elsewhere/x/data.bin"]
    assert download(remote(), tmp_path / "set").read_bytes() == CONTENT


def test_when_no_mirror_has_it_the_error_names_every_reason_and_leaves_nothing(server: str, tmp_path: Path):
    mirrors = (CLOSED, f"{server}/nowhere", f"{server}/bad")
    root = tmp_path / "root"
    with pytest.raises(FileNotFoundError) as error:
        locate(root, "set", ("data.bin", "data"), remote(*mirrors))
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"data.bin or data is neither in {root / 'set'} nor in {root}, and data.bin could not be")
    assert f"{CLOSED}/data.bin (ConnectionError: " in message
    assert f"{server}/nowhere/data.bin (HTTPError: 404" in message
    digest = hashlib.sha256(b"something else").hexdigest()
    assert f"{server}/bad/data.bin (ValueError: SHA256" in message
    assert f"expected sha256:{SHA256} but got {digest}" in message
    assert message.endswith(
        "put it there by hand, or set the data folder, or CTBENCH_DATA, to the folder that contains it"
    )
    assert not (root / "set").exists()


def test_a_failed_download_leaves_an_older_folder_alone(tmp_path: Path):
    (tmp_path / "set").mkdir()
    with pytest.raises(ConnectionError, match="no network in tests"):
        download(remote("https://elsewhere"), tmp_path / "set")
    assert (tmp_path / "set").exists()


def test_a_root_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)
    with pytest.raises(FileNotFoundError, match=r"data.bin could not be downloaded: .*set is not writable; put it"):
        locate(tmp_path, "set", ("data.bin",), remote(CLOSED))
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded: .*Not a directory"):
        locate(tmp_path / "file", "set", ("data.bin",), remote(CLOSED))


def test_a_person_sees_a_progress_bar(monkeypatch: pytest.MonkeyPatch, server: str, tmp_path: Path, capsys):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    download(remote(f"{server}/good"), tmp_path / "set")
    shown = capsys.readouterr()
    assert "data.bin" in shown.err
    assert "1.0/1.0 MB" in shown.err
    assert shown.out == ""


def test_nobody_sees_no_progress_bar(server: str, tmp_path: Path, capsys):
    download(remote(f"{server}/good"), tmp_path / "set")
    assert "MB" not in capsys.readouterr().err


def test_a_wrong_checksum_names_the_file_and_both_values(tmp_path: Path):
    path = tmp_path / "data.bin"
    path.write_bytes(CONTENT)
    check_sha256(path, SHA256)
    check_sha256(path, hashlib.sha256(b"unpacked").hexdigest(), content=b"unpacked")
    with pytest.raises(ValueError, match=rf"data.bin: the SHA-256 is {SHA256}, expected 00; .*: delete it, and it"):
        check_sha256(path, "00")
    with pytest.raises(ValueError, match="the unpacked SHA-256 is"):
        check_sha256(path, "00", content=b"unpacked")
