"""Frauds that are planted in a run: `check` finds each of them, in the run and in a pack with a manifest that fits."""

import shutil

import numpy as np
import pytest
import torch
from tests.packs.conftest import NAME, failed, first, forge, forge_settings, records_of, repacked

from ctbench.datasets import corrupted
from ctbench.graph import Precisions
from ctbench.onnx import save_onnx
from ctbench.packs import archive, check
from ctbench.regions import Linf
from ctbench.results import RunFolder, jsonl
from ctbench.results.checking import sealed, unsealed
from ctbench.training import load_run
from ctbench.verify import Records, certify, radii
from ctbench.verify.job import Samples


def a_record_is_edited(run, other):
    """Without a checksum that fits."""
    records = records_of(run)
    first(records, "certified")["bound"] += 1.0
    jsonl.rewrite(run.certification(NAME).records, records)


def a_falsified_sample_is_called_certified(run, other):
    def edit(records):
        index = first(records, "falsified")["index"]
        (run.certification(NAME).counterexamples / f"{index}.npy").unlink()
        first(records, "falsified").update(verdict="certified", bound=0.2)

    forge(run, edit)


def its_counterexample_stays(run, other):
    forge(run, lambda records: first(records, "falsified").update(verdict="certified", bound=0.2))


def weights_are_exchanged(run, other):
    shutil.copy(other / "weights.safetensors", run.weights)


def weights_and_digests_are_exchanged(run, other):
    shutil.copy(other / "weights.safetensors", run.weights)
    x = load_run(other).recipe.dataset.load().test[:1][0]
    forge_settings(run, network_digest=Precisions.of(load_run(other).model, x).proof.digest())


def eps_is_changed(run, other):
    forge_settings(run, eps=0.1)


def eps_is_changed_everywhere(run, other):
    forge_settings(run, eps=0.15, threat="Linf(eps=0.15, clip=(0.0, 1.0))")
    for path in run.certification(NAME).records.parent.iterdir():
        path.rename(path.with_name(path.name.replace("0.05", "0.15")))


def a_counterexample_is_moved_out_of_the_ball(run, other):
    path = sorted(run.certification(NAME).counterexamples.iterdir())[0]
    x = load_run(run.path).recipe.dataset.load().test[int(path.stem) : int(path.stem) + 1][0][0].double().numpy()
    np.save(path, x + 1.2 * (np.load(path) - x))


def a_counterexample_is_the_clean_image(run, other):
    path = sorted(run.certification(NAME).counterexamples.iterdir())[0]
    x = load_run(run.path).recipe.dataset.load().test[int(path.stem) : int(path.stem) + 1][0][0].double().numpy()
    np.save(path, x)


def a_counterexample_is_missing(run, other):
    sorted(run.certification(NAME).counterexamples.iterdir())[0].unlink()


def a_sample_is_missing(run, other):
    forge(run, lambda records: [record for record in records if record["index"] != 7])


def a_sample_is_there_twice(run, other):
    forge(run, lambda records: [*records, first(records, "certified")])


def a_good_sample_stands_in_place_of_a_bad_one(run, other):
    def edit(records):
        bad = first(records, "misclassified")["index"]
        good = {**first(records, "certified"), "index": bad}
        return [*(record for record in records if record["index"] != bad), good]

    forge(run, edit)


def the_data_set_has_another_name(run, other):
    forge_settings(run, dataset="mnist")


def the_samples_lie_beyond_the_data_set(run, other):
    forge_settings(run, samples=[0, 4000])


def a_misclassified_sample_is_called_certified(run, other):
    def edit(records):
        record = first(records, "misclassified")
        record.update(verdict="certified", bound=0.2, stage="crown", prediction=record["label"])

    forge(run, edit)


def a_label_is_changed_to_the_prediction(run, other):
    def edit(records):
        record = first(records, "misclassified")
        x = load_run(run.path).recipe.dataset.load().test[record["index"] : record["index"] + 1][0]
        digest = Samples([0], x, torch.tensor([record["prediction"]])).digest(0)
        record.update(verdict="certified", bound=0.2, stage="crown", label=record["prediction"], digest=digest)

    forge(run, edit)


def a_robust_sample_is_called_misclassified(run, other):
    def edit(records):
        record = first(records, "certified")
        record.update(verdict="misclassified", bound=None, stage="clean", prediction=(record["label"] + 1) % 10)

    forge(run, edit)


def the_network_of_the_recipe_is_another(run, other):
    recipe = jsonl.read_json(run.recipe)
    recipe["network"]["hidden"] = [30]
    jsonl.write_json(run.recipe, recipe)


FRAUDS = [
    (a_record_is_edited, "it was edited"),
    (a_falsified_sample_is_called_certified, "is certified in the records, but it is falsified"),
    (its_counterexample_stays, "which the records do not call falsified"),
    (weights_are_exchanged, "another network than these weights"),
    (weights_and_digests_are_exchanged, "but the network predicts"),
    (eps_is_changed, "these do not agree"),
    (eps_is_changed_everywhere, "is certified in the records, but it is falsified"),
    (a_counterexample_is_moved_out_of_the_ball, "lies outside its region"),
    (a_counterexample_is_the_clean_image, "the network is right at the counterexample"),
    (a_counterexample_is_missing, "is missing"),
    (a_sample_is_missing, "it lacks 1 of 40 samples, e.g. sample 7"),
    (a_sample_is_there_twice, "has two records"),
    (a_good_sample_stands_in_place_of_a_bad_one, "is about another image or label"),
    (the_data_set_has_another_name, "its records are about 'mnist'"),
    (the_samples_lie_beyond_the_data_set, "and there are 359 test images"),
    (a_misclassified_sample_is_called_certified, "but the network predicts"),
    (a_label_is_changed_to_the_prediction, "is about another image or label"),
    (a_robust_sample_is_called_misclassified, "but the network predicts"),
    (the_network_of_the_recipe_is_another, "another network"),
]


@pytest.mark.parametrize(("plant", "message"), FRAUDS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_fraud_is_found_in_a_run_and_in_its_pack(plant, message, run, other, zipped, tmp_path):
    plant(run, other)
    told = failed(run.path)
    assert any(message in line for line in told), told
    assert all("\n" not in line for line in told)
    again = failed(repacked(run, zipped, tmp_path / "forged.zip"))
    assert any(message in line for line in again), again


def test_an_honest_run_and_its_pack_hold(run, zipped):
    for path in (run.path, zipped):
        claims = list(check(path, samples=10))
        assert all(claim.holds for claim in claims), [str(claim) for claim in claims]
        assert len(claims) >= 8
        said = "\n".join(map(str, claims))
        assert "samples 0 to 39 of 359 test images, each once: natural" in said
        assert "10 of " in said
        assert "counterexamples lie in their regions" in said


def test_a_fraud_beyond_the_random_part_is_found_by_more_samples(run, other):
    a_falsified_sample_is_called_certified(run, other)
    assert not failed(run.path, samples=0)
    assert failed(run.path)


def test_exchanged_onnx_files_and_data_are_found_in_a_pack(run, other, zipped, tmp_path):
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    archive.extract(zipped, unpacked)
    save_onnx(load_run(other).model, unpacked / "network.onnx", (1, 8, 8))
    data = jsonl.read_json(unpacked / "data.json")
    files = {path.relative_to(unpacked).as_posix(): path for path in unpacked.rglob("*") if path.is_file()}
    del files["manifest.json"]
    archive.write(tmp_path / "onnx.zip", files, {})
    assert any("it is another network: on 100 test images" in line for line in failed(tmp_path / "onnx.zip"))
    jsonl.write_json(unpacked / "data.json", data | {"sha256": "0" * 64})
    archive.write(tmp_path / "data.zip", files, {})
    assert any("are not those of the pack: sha256 differs" in line for line in failed(tmp_path / "data.zip"))
    del files["data.json"]
    archive.write(tmp_path / "no_data.zip", files, {})
    assert any("does not say what its records are about" in line for line in failed(tmp_path / "no_data.zip"))


def test_the_records_of_a_search_for_radii_are_checked(run):
    loaded = load_run(run.path)
    x, y = loaded.recipe.dataset.load().test[:4]
    files = RunFolder(run.path).radii("linf-0.1")
    radii(loaded.model, x, y, Linf(0.1), tolerance=0.02, records=Records(files.records))
    assert failed(run.path) == []
    lines = jsonl.read(files.records)
    wrong = next(line for line in lines if line["verdict"] == "falsified")
    wrong.update(verdict="certified", bound=0.3)
    jsonl.rewrite(files.records, [sealed(unsealed(line)) for line in lines])
    assert any("radii/linf-0.1.jsonl" in line for line in failed(run.path))


def test_records_about_corrupted_images_are_checked_on_these_images(run):
    loaded = load_run(run.path)
    dataset = corrupted(loaded.recipe.dataset, "fog", severity=2)
    x, y = dataset.load().test[:6]
    files = run.certification(f"{NAME}-{dataset.title}")
    certify(loaded.model, x, y, eps=0.05, records=Records(files.records, about={"dataset": dataset.title}))
    assert failed(run.path, samples=3) == []
    jsonl.write_json(files.settings, sealed(unsealed(jsonl.read_json(files.settings)) | {"dataset": "digits+fog-3"}))
    assert any("is about another image" in line for line in failed(run.path, samples=3))
