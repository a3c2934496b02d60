"""Packs and runs from somebody who means harm: each is refused in one clear line, and nothing is written elsewhere."""

import io
import json
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from tests.packs.conftest import NAME, failed, forge_settings, repacked

from ctbench.packs import PackError, archive, check, pack
from ctbench.results import jsonl
from ctbench.training import tensor_files


def zip_of(path: Path, entries: dict[str, bytes], mode: int = stat.S_IFREG | 0o644) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr, entry.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            file.writestr(entry, content)
    return path


def only(path: Path) -> str:
    """The one line about a file that cannot be opened."""
    claims = list(check(path))
    assert [claim.holds for claim in claims] == [False]
    line = str(claims[0])
    assert "\n" not in line
    assert line.startswith("FAILED")
    return line


NAMES = ["../recipe.json", "/etc/recipe.json", "certified/../../x.json", "C:/x.json", "a\\b.json", "certified/.json"]
NAMES += [
    "certified/a/b.jsonl",
    "state.safetensors",
    "certified/x.counterexamples/01.npy",
    "run.py",
    "certified/\n.json",
]
NAMES += ["certified/", ".", "certified/x.jsonl/../../y.json"]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_names_that_no_pack_has_are_refused(name, tmp_path):
    assert "no pack has a file of this name" in only(zip_of(tmp_path / "a.zip", {name: b"{}"}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip"]


@pytest.mark.parametrize(
    ("mode", "said"), [(stat.S_IFLNK | 0o777, "a symbolic link"), (stat.S_IFIFO, "not a plain file")]
)
def test_links_and_devices_are_refused(mode, said, tmp_path):
    assert said in only(zip_of(tmp_path / "a.zip", {"recipe.json": b"/etc/passwd"}, mode))


def test_a_bomb_is_not_unpacked(tmp_path):
    path = zip_of(tmp_path / "a.zip", {"metrics.jsonl": bytes(30_000_000)})
    assert path.stat().st_size < 100_000
    assert "it would unpack to 30000000 bytes" in only(path)


def test_a_size_that_is_a_lie_is_damage(tmp_path):
    """The directory says that little is unpacked, and the data hold more."""
    path = zip_of(tmp_path / "a.zip", {"metrics.jsonl": bytes(30_000_000)})
    content = path.read_bytes().replace((30_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    path.write_bytes(content)
    assert "is damaged" in only(path)


def test_two_entries_of_one_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("recipe.json", "{}")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("recipe.json", "[]")
    assert "two entries 'recipe.json'" in only(tmp_path / "a.zip")


def test_two_entries_of_one_name_on_some_file_systems_are_refused(tmp_path):
    entries = {"certified/a.json": b"{}", "certified/A.json": b"[]"}
    assert "two entries 'certified/A.json'" in only(zip_of(tmp_path / "a.zip", entries))


def test_other_compressions_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as file:
        file.writestr("recipe.json", "{}")
    assert "compressed in another way" in only(tmp_path / "a.zip")


def test_what_is_no_zip_file_or_a_part_of_one_is_refused(zipped, tmp_path):
    (tmp_path / "a.zip").write_bytes(b"hello")
    assert "is damaged or not a ZIP file" in only(tmp_path / "a.zip")
    (tmp_path / "a.zip").write_bytes(zipped.read_bytes()[:-100])
    assert "is damaged or not a ZIP file" in only(tmp_path / "a.zip")
    content = bytearray(zipped.read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "a.zip").write_bytes(content)
    assert "is damaged" in only(tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (b"[]", "has the format 'list'"),
        (b"{", "is not a JSON file"),
        (b"[" * 100_000, "maximum recursion depth"),
        (b'{"format": "ctbench pack 1", "files": []}', "are not names with a sha256"),
        (b'{"format": "ctbench pack 1", "files": {"a": {"sha256": NaN, "bytes": 1}}}', "are not names with a sha256"),
        (
            b'{"format": "ctbench pack 1", "files": {"recipe.json": {"sha256": "%s", "bytes": 1}}}' % (b"0" * 64),
            "but not in",
        ),
        (b'{"format": "ctbench pack 2", "files": {}}', "has the format 'ctbench pack 2', expected 'ctbench pack 1'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_manifest_is_refused(manifest, said, tmp_path):
    assert said in only(zip_of(tmp_path / "a.zip", {"manifest.json": manifest}))


def test_a_pack_without_a_manifest_or_with_other_files_is_refused(zipped, tmp_path):
    assert "there is no manifest.json" in only(zip_of(tmp_path / "a.zip", {"recipe.json": b"{}"}))
    with zipfile.ZipFile(zipped) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    more = zip_of(tmp_path / "b.zip", entries | {"certified/more.json": b"{}"})
    assert "certified/more.json is in the pack, but not in manifest.json" in only(more)
    changed = zip_of(tmp_path / "c.zip", entries | {"recipe.json": entries["recipe.json"][::-1]})
    assert "the SHA-256 of recipe.json is not that in manifest.json" in only(changed)
    manifest = json.loads(entries["manifest.json"])
    manifest["files"]["recipe.json"]["bytes"] += 1
    sizes = zip_of(tmp_path / "d.zip", entries | {"manifest.json": json.dumps(manifest).encode()})
    assert "in manifest.json: one of the two was changed" in only(sizes)


def infinite_weights(run):
    tensors, about = tensor_files.read(run.weights)
    name = next(iter(tensors))
    run.weights.write_bytes(safetensors.torch.save({**tensors, name: tensors[name] * torch.nan}, metadata=about))


def a_network_of_any_size(run):
    tensors, about = tensor_files.read(run.weights)
    blueprint = json.loads(about["blueprint"])
    blueprint["network"]["hidden"] = [10**7, 10**7]
    run.weights.write_bytes(safetensors.torch.save(tensors, metadata={"blueprint": json.dumps(blueprint)}))


def weights_of_random_bytes(run):
    run.weights.write_bytes(b"\xff" * 5000)


def a_recipe_that_is_a_list(run):
    run.recipe.write_text("[1, 2]")


def a_deep_recipe(run):
    run.recipe.write_text("[" * 100_000)


def a_bound_that_is_nan(run):
    path = run.certification(NAME).records
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0].replace('"bound": ', '"bound": NaN, "old": ', 1), *lines[1:], ""]))


def a_line_that_is_a_list(run):
    path = run.certification(NAME).records
    path.write_text("[]\n" + path.read_text())


def eps_that_is_nan(run):
    forge_settings(run, eps=float("nan"))


def eps_that_is_a_text(run):
    forge_settings(run, eps="0.05")


def a_norm_that_is_unknown(run):
    forge_settings(run, norm="l7")


def point(run) -> Path:
    return sorted(run.certification(NAME).counterexamples.iterdir())[0]


def a_point_that_is_nan(run):
    np.save(point(run), np.load(point(run)) * np.nan)


def a_point_of_another_shape(run):
    np.save(point(run), np.zeros((2, 4, 8)))


def a_point_that_is_a_pickle(run):
    np.save(point(run), np.array([print], dtype=object), allow_pickle=True)


def a_point_of_any_size(run):
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    point(run).write_bytes(content.getvalue())


def a_point_that_is_long(run):
    np.save(point(run), np.zeros(10**4))


HOSTILE = [
    (infinite_weights, "NaN or infinite"),
    (a_network_of_any_size, "numbers, but its network has"),
    (weights_of_random_bytes, "damaged or not a safetensors file"),
    (a_recipe_that_is_a_list, "recipe.json"),
    (a_deep_recipe, "maximum recursion depth"),
    (a_bound_that_is_nan, "line 1: "),
    (a_line_that_is_a_list, "line 1: not a JSON object but list"),
    (eps_that_is_nan, "its eps is nan"),
    (eps_that_is_a_text, "its eps is '0.05'"),
    (a_norm_that_is_unknown, "norm is 'l7'"),
    (a_point_that_is_nan, "does not hold finite doubles"),
    (a_point_of_another_shape, "does not hold finite doubles of shape (1, 8, 8)"),
    (a_point_that_is_a_pickle, "is not an NPY file of a point"),
    (a_point_of_any_size, "is not an NPY file of a point"),
    (a_point_that_is_long, "has 80128 bytes, a point of shape (1, 8, 8) has 512"),
]


@pytest.mark.parametrize(("plant", "said"), HOSTILE, ids=lambda value: getattr(value, "__name__", ""))
def test_hostile_content_is_one_clear_line(plant, said, run, zipped, tmp_path):
    plant(run)
    for path in (run.path, repacked(run, zipped, tmp_path / "hostile.zip")):
        told = failed(path, samples=2)
        assert any(said in line for line in told), told
        assert all("\n" not in line and len(line) < 500 for line in told)
        assert all(str(tmp_path) not in line for line in told), "paths of unpacked files say nothing"


def test_links_in_a_run_folder_are_refused(run, tmp_path):
    (tmp_path / "secret.json").write_text("{}")
    (run.path / "certified" / "linf-0.2.json").symlink_to(tmp_path / "secret.json")
    assert any("certified/linf-0.2.json is a symbolic link" in line for line in failed(run.path))
    with pytest.raises(ValueError, match="is a symbolic link"):
        pack(run.path, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_a_pack_is_the_same_each_time(made, zipped, tmp_path):
    assert pack(made, tmp_path / "again.zip") == []
    assert (tmp_path / "again.zip").read_bytes() == zipped.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.zip"]


def test_a_pack_holds_no_state_and_no_lock(zipped):
    with zipfile.ZipFile(zipped) as file:
        names = set(file.namelist())
    assert {"manifest.json", "data.json", "network.onnx", "weights.safetensors", f"certified/{NAME}.jsonl"} <= names
    assert not [name for name in names if "state" in name or "lock" in name]


def test_a_run_that_was_edited_is_not_packed(run, tmp_path):
    path = run.certification(NAME).records
    records = jsonl.read(path)
    jsonl.rewrite(path, [records[0] | {"index": 500}, *records[1:]])
    with pytest.raises(ValueError, match="line 1"):
        pack(run.path, tmp_path / "a.zip")
    with pytest.raises(ValueError, match=r"choose one that ends in \.zip"):
        pack(run.path, tmp_path / "a.tar")


def test_a_pack_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        archive.extract(tmp_path / "a.zip", tmp_path)
    with pytest.raises(PackError, match="so this is not a pack"):
        archive.read_manifest(tmp_path)
