"""`ctbench convert`, and weights of others in `certify`."""

from pathlib import Path

import pytest
import torch

from ctbench import load_network, load_onnx, load_run
from ctbench.networks import CNN3, MLP


@pytest.fixture
def theirs(tmp_path):
    """Weights in a checkpoint of PyTorch, and the network."""
    torch.manual_seed(0)
    model = CNN3(width=2).build((1, 8, 8), 10).eval()
    state = {f"module.layers.{int(n.split('.')[0]) + 1}.{n.split('.')[1]}": v for n, v in model.state_dict().items()}
    path = tmp_path / "theirs" / "net.pth"
    path.parent.mkdir()
    torch.save({"state_dict": state, "epoch": 5}, path)
    return path, model


def test_a_checkpoint_of_others_becomes_safetensors_and_onnx(theirs, succeeds, fails):
    path, model = theirs
    x = torch.rand(5, 1, 8, 8)
    network = ("--network", "cnn3,width=2")
    out = succeeds("convert", path, "--to", "safetensors", *network, "--dataset", "digits", "--out", "a.safetensors")
    assert out == "a.safetensors\n"
    assert torch.equal(load_network("a.safetensors")(x), model(x))
    assert "exists already" in fails("convert", path, "--to", "safetensors", *network, "--out", "a.safetensors")
    succeeds("convert", path, "--to", "onnx", *network, "--input-shape", "1,8,8", "--out", "b.onnx")
    succeeds("convert", "a.safetensors", "--to", "onnx")
    for name in ("a.onnx", "b.onnx"):
        assert torch.allclose(load_onnx(name)(x), model(x), atol=1e-5)
    certify = ("certify", "a.safetensors", "--dataset", "digits", "--eps", 0.01, "--samples", 5, "--stages", "fast")
    assert "5 samples" in succeeds(*certify)


def test_a_checkpoint_of_others_is_certified_and_the_matching_is_told(theirs, capsys, succeeds):
    from ctbench.cli import main

    data = ["--dataset", "digits", "--eps", "0.01", "--samples", "5", "--stages", "fast"]
    assert main(["certify", str(theirs[0]), "--network", "cnn3,width=2", *data]) == 0
    said = capsys.readouterr()
    assert "layers.1 as 0" in said.err
    assert said.out.splitlines()[-1] == "runs/theirs-net/certified/linf-0.01.jsonl"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--dataset", "digits"], "does not say which network it is for"),
        (["--network", "cnn3,width=2"], "give either --dataset or --input-shape"),
        (["--network", "cnn3,width=3", "--dataset", "digits"], "nor do the shapes of their layers agree: the file has"),
        (["--network", "cnn3,breadth=2", "--dataset", "digits"], "has no field 'breadth'"),
        (["--network", "cnn3,width=2", "--input-shape", "1,x"], "'1,x' is not a shape"),
    ],
)
def test_what_cannot_be_converted_is_explained_in_a_line(theirs, fails, options, said):
    assert said in fails("convert", theirs[0], "--to", "onnx", *options)


def test_every_file_of_weights_has_records_of_its_own(theirs, succeeds):
    network = ("--network", "cnn3,width=2", "--input-shape", "1,8,8")
    for folder in ("a", "b/c"):
        path = theirs[0].parent / folder / "weights.safetensors"
        path.parent.mkdir(parents=True)
        succeeds("convert", theirs[0], "--to", "safetensors", *network, "--out", path)
        data = ("--dataset", "digits", "--eps", 0.01, "--samples", 2, "--stages", "fast")
        assert succeeds("certify", path, *data).splitlines()[-1].startswith(f"runs/{path.parent.name}-weights/")


def test_a_run_is_converted_to_onnx(succeeds, fails, run):
    succeeds("convert", run, "--to", "onnx", "--out", "network.onnx")
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(load_onnx("network.onnx")(x), load_run(run).model(x))
    assert "only --to onnx" in fails("convert", run, "--to", "safetensors")
    assert "only --to onnx" in fails("convert", run, "--to", "onnx", "--network", "cnn3")
    succeeds("convert", "zoo:mnist_small_ibp", "--to", "onnx")
    assert Path("mnist_small_ibp.onnx").is_file()


def test_a_function_without_a_name_is_refused(fails):
    assert "write MODULE:FUNCTION or FILE.py:FUNCTION" in fails("train", "digits_ibp", "--model", "nets/mine.py")


def test_a_run_of_your_own_module_is_converted_with_the_module(succeeds, fails, tmp_path):
    Path("own_of_convert.py").write_text(
        "from ctbench.networks import MLP\ndef net(): return MLP().build((1, 8, 8), 10)\n"
    )
    own = ("--model", "own_of_convert.py:net")
    succeeds("train", "digits_ibp", *own, "--epochs", 1, "--set", "train_samples=128", "--out", "own", "--quiet")
    Path("own/network.onnx").unlink()
    for command in (("convert", "--to", "onnx"), ("certify", "--eps", 0.1, "--dataset", "digits")):
        message = fails(command[0], "own/weights.safetensors", *command[1:])
        assert "give the run folder and the module" in message
        assert "--model is for the run of a module of your own" in fails(
            command[0], "own/weights.safetensors", *own, *command[1:]
        )
    assert "give the run folder and the module" in fails("convert", "own", "--to", "onnx")
    succeeds("convert", "own", "--to", "onnx", *own)
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        expected = load_run("own", model=MLP().build((1, 8, 8), 10)).model(x)
        torch.testing.assert_close(load_onnx("own.onnx")(x), expected)
