"""Write a network and its properties to files, read them again, and decide them.

python examples/onnx_and_vnnlib.py
"""

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import ctbench
from ctbench.datasets import Digits

FOLDER = Path("runs/onnx_and_vnnlib")


def write(radii: tuple[float, ...]) -> None:
    """A small network as ONNX, and for each radius the property that nothing turns the first test image."""
    torch.manual_seed(0)
    data = Digits().load()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(data.train.inputs), data.train.labels).backward()
        optimizer.step()
    FOLDER.mkdir(parents=True, exist_ok=True)
    ctbench.save_onnx(model, FOLDER / "network.onnx", (1, 8, 8))
    x, y = data.test[:1]
    for eps in radii:
        box = ctbench.Linf(eps=eps).region(x[0])
        ctbench.write_robustness(FOLDER / f"{eps}.vnnlib", box.lower, box.upper, int(y), classes=10)


def main() -> None:
    radii = (0.02, 0.05, 0.1, 0.2)
    write(radii)
    model = ctbench.load_onnx(FOLDER / "network.onnx")  # a torch module
    for eps in radii:
        result = ctbench.verify_property(model, ctbench.read_vnnlib(FOLDER / f"{eps}.vnnlib"), timeout=5.0)
        print(f"eps {eps:<5} {result.verdict:<9} by {result.stage:<16} least margin >= {result.bound}")
        if result.counterexample:
            _, output = result.counterexample  # the input, and what the network says of it
            print(f"          there is an input of the box that the network takes for a {int(output.argmax())}")


if __name__ == "__main__":
    main()
