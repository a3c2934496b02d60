"""Frauds that are planted in a run: `check` finds each of them, in the run and in a pack with a manifest that fits."""

import shutil
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from tests.packs.conftest import NAME, failed, first, forge, forge_settings, records_of, repacked
from torch import nn

from ctbench.datasets import corrupted
from ctbench.graph import Precisions
from ctbench.onnx import save_onnx
from ctbench.packs import archive, check
from ctbench.results import RunFolder, Verdict, jsonl
from ctbench.results.checking import sealed, unsealed
from ctbench.training import load_run, tensor_files
from ctbench.verify import Problem, Records, certify, certify_radii, stages_by_name
from ctbench.verify.job import Samples

OPEN = {"verdict": "unknown", "open": "not decided", "bound": -0.01, "reason": ""}


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


def a_misclassified_sample_has_another_wrong_class(run, other):
    def edit(records):
        record = first(records, "misclassified")
        classes = {record["label"], record["prediction"]}
        record.update(prediction=next(number for number in range(10) if number not in classes))

    forge(run, edit)


def a_misclassified_sample_has_a_class_that_is_none(run, other):
    forge(run, lambda records: first(records, "misclassified").update(prediction=10))


def a_certified_sample_is_called_unknown_without_a_prediction(run, other):
    forge(run, lambda records: first(records, "certified").update(OPEN, prediction=-1))


def a_certified_sample_is_called_cut_off(run, other):
    cut_off = OPEN | {"open": "job over", "reason": "the time is over", "prediction": -1}
    forge(run, lambda records: first(records, "certified").update(cut_off))


def a_misclassified_sample_is_called_unknown(run, other):
    def edit(records):
        record = first(records, "misclassified")
        record.update(OPEN, stage="crown", prediction=record["label"])

    forge(run, edit)


def a_robust_sample_is_called_falsified(run, other):
    """No counterexamples are kept."""
    shutil.rmtree(run.certification(NAME).counterexamples)
    forge(run, lambda records: first(records, "certified").update(verdict="falsified", bound=None, stage="pgd"))


def its_settings_leave_out_a_sample(run, other):
    forge_settings(run, samples=[0, 39])


def the_file_has_the_name_of_another_radius(run, other):
    for path in run.certification(NAME).records.parent.iterdir():
        path.rename(path.with_name(path.name.replace("0.05", "0.15")))


def the_file_has_the_name_of_another_radius_and_more(run, other):
    for path in run.certification(NAME).records.parent.iterdir():
        path.rename(path.with_name(path.name.replace("0.05", "0.15-more")))


def a_counterexample_lies_just_beyond_the_ball(run, other):
    path = sorted(run.certification(NAME).counterexamples.iterdir())[0]
    point = np.load(path)
    x = load_run(run.path).recipe.dataset.load().test[int(path.stem) : int(path.stem) + 1][0][0].double().numpy()
    place = np.unravel_index(np.argmax(point - x), x.shape)
    assert point[place] > x[place] + 0.049
    point[place] = x[place] + 0.05 + 1e-6
    np.save(path, point)


def the_file_has_the_name_of_another_norm(run, other):
    for path in run.certification(NAME).records.parent.iterdir():
        path.rename(path.with_name(path.name.replace("linf", "l2")))


FRAUDS = [
    (the_file_has_the_name_of_another_norm, "its name says otherwise"),
    (a_misclassified_sample_has_another_wrong_class, "but the network predicts"),
    (a_misclassified_sample_has_a_class_that_is_none, "has prediction 10, the network has 10 classes"),
    (
        a_certified_sample_is_called_unknown_without_a_prediction,
        "is unknown with prediction -1, but the network",
    ),
    (a_certified_sample_is_called_cut_off, "it lacks 1 of 40 samples"),
    (a_misclassified_sample_is_called_unknown, "but the network predicts"),
    (a_robust_sample_is_called_falsified, "is falsified in the records, but it is certified"),
    (its_settings_leave_out_a_sample, "it has sample 39, and its settings say samples 0 to 38"),
    (the_file_has_the_name_of_another_radius, "its name says otherwise"),
    (the_file_has_the_name_of_another_radius_and_more, "its name says otherwise"),
    (a_counterexample_lies_just_beyond_the_ball, "lies outside its region"),
    (a_record_is_edited, "it was edited"),
    (a_falsified_sample_is_called_certified, "is certified in the records, but it is falsified"),
    (its_counterexample_stays, "which the records do not call falsified"),
    (weights_are_exchanged, "another network than these weights"),
    (weights_and_digests_are_exchanged, "but the network predicts"),
    (eps_is_changed, "these do not agree"),
    (eps_is_changed_everywhere, "is certified in the records, but it is falsified"),
    (a_counterexample_is_moved_out_of_the_ball, "lies outside its region"),
    (a_counterexample_is_the_clean_image, "the network is right at the counterexample"),
    (a_counterexample_is_missing, "is missing: certify again with --counterexamples, or remove the folder"),
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


def test_a_counterexample_without_the_number_of_a_sample_is_told(run):
    folder = run.certification(NAME).counterexamples
    shutil.copyfile(sorted(folder.iterdir())[0], folder / "abc.npy")
    assert any(
        "the counterexample abc.npy is not named by the number of its sample" in line for line in failed(run.path)
    )


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


def a_slightly_different_network(run: RunFolder) -> nn.Module:
    """Its logits differ by less than a hundredth of the largest one."""
    model, x = load_run(run.path).model, load_run(run.path).recipe.dataset.load().test[:100][0]
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        last.bias[0] += 0.003 * model(x).abs().max().clamp(min=1.0)
    return model


def test_a_slightly_different_onnx_file_is_found(run):
    save_onnx(a_slightly_different_network(run), run.exported, (1, 8, 8))
    assert any("it is another network: on 100 test images" in line for line in failed(run.path))


def all_logits_are_equal(run: RunFolder) -> None:
    """The weights are 0, and the records say that they are about this network."""
    tensors, about = tensor_files.read(run.weights)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    run.weights.write_bytes(safetensors.torch.save(zeros, metadata=about))
    model, x = load_run(run.path).model, load_run(run.path).recipe.dataset.load().test[:1][0]
    forge_settings(run, network_digest=Precisions.of(model, x).proof.digest())


@pytest.mark.parametrize("verdict", ["certified", "misclassified"])
def test_a_verdict_needs_a_strict_sign_at_the_clean_input(verdict, run):
    all_logits_are_equal(run)
    index = first(records_of(run), verdict)["index"]
    forge(run, lambda records: [record for record in records if record["index"] == index])
    forge_settings(run, samples=[index, index + 1])
    told = failed(run.path, samples=0)
    assert any("but two logits are equal at the clean input" in line for line in told), told


@pytest.mark.parametrize("verdict", ["certified", "misclassified"])
def test_a_verdict_needs_a_sign_that_is_known(verdict, run, monkeypatch):
    monkeypatch.setattr(Problem, "signs", lambda self, points: torch.full((len(points),), torch.nan))
    index = first(records_of(run), verdict)["index"]
    forge(run, lambda records: [record for record in records if record["index"] == index])
    forge_settings(run, samples=[index, index + 1])
    assert any("rounding leaves open whether the network is right" in line for line in failed(run.path, samples=0))


def test_a_proof_that_takes_too_long_does_not_hold(run):
    assert any("was not proved again" in line and "give more time" in line for line in failed(run.path, timeout=1e-6))


def test_predictions_that_rounding_leaves_open_are_counted(run):
    """All logits are equal: the class that is predicted is a matter of order."""
    all_logits_are_equal(run)
    index = first(records_of(run), "falsified")["index"]
    shutil.rmtree(run.certification(NAME).counterexamples)
    forge(run, lambda records: [record for record in records if record["index"] == index])
    forge_settings(run, samples=[index, index + 1])
    said = [str(claim) for claim in check(run.path, samples=0) if claim.holds]
    assert any("the predictions of 0 of 1 samples are as said; rounding leaves 1 open" in line for line in said), said


def test_what_an_attack_finds_on_unknown_samples_is_said(run):
    """Falsified samples that are called unknown are no false proof, but the adversarial accuracy seems higher."""
    honest = run.certification(NAME).read()
    shutil.rmtree(run.certification(NAME).counterexamples)
    forge(run, lambda records: [{**r, **OPEN} if r["verdict"] == "falsified" else r for r in records])
    said = [str(claim) for claim in check(run.path, samples=40, seed=0)]
    number, accuracy = honest.counts[Verdict.FALSIFIED], 100 * honest.adversarial_accuracy
    attacked = f"of {number} unknown samples with the right prediction an attack tried {number}, and falsified {number}"
    rest = f"with these, the adversarial accuracy is {accuracy:.2f} %; nothing proves that it is not lower"
    assert any(f"{attacked}: {rest}" in line for line in said), said


def test_falsified_samples_without_points_are_tried_again(run):
    number = run.certification(NAME).read().counts[Verdict.FALSIFIED]
    shutil.rmtree(run.certification(NAME).counterexamples)
    said = [str(claim) for claim in check(run.path, samples=40, seed=0) if claim.holds]
    again = f"{number} of {number} falsified samples were falsified again, {number} were tried, none was certified"
    assert any(again in line for line in said), said


def test_a_run_is_checked_after_an_interruption_and_after_its_end(run):
    loaded = load_run(run.path)
    x, y = loaded.recipe.dataset.load().test[:8]
    places = {eps: run.certification(f"linf-{eps:.10g}").records for eps in (0.02, 8 / 255)}
    about = {"dataset": "digits", "network": "mlp"}

    def certify_some(**options: Any) -> None:
        records = {eps: Records(path, resume=True, about=about) for eps, path in places.items()}
        certify_radii(loaded.model, x, y, eps=list(places), records=records, **options)

    certify_some(total=1e-9, stages=stages_by_name("interval"))
    assert any("it has no records" in line for line in failed(run.path))
    certify_some(stages=stages_by_name("interval"))
    assert failed(run.path) == []
    certify_some()
    assert failed(run.path) == []


def test_records_about_corrupted_images_are_checked_on_these_images(run):
    loaded = load_run(run.path)
    dataset = corrupted(loaded.recipe.dataset, "fog", severity=2)
    x, y = dataset.load().test[:6]
    files = run.certification(f"{NAME}-{dataset.title}")
    certify(loaded.model, x, y, eps=0.05, records=Records(files.records, about={"dataset": dataset.title}))
    assert failed(run.path, samples=3) == []
    jsonl.write_json(files.settings, sealed(unsealed(jsonl.read_json(files.settings)) | {"dataset": "digits+fog-3"}))
    assert any("is about another image" in line for line in failed(run.path, samples=3))
