"""The share of the MNIST test images that each domain cannot prove robust, for Wong & Kolter's network, and its time.

All 10,000 test images, linf eps 0.1 without a data range: the setting of the published 5.8 %. CTBENCH_DATA names the
folder of the data. The network is read from the folder pretrained/ next to it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch

import ctbench
from ctbench.datasets import MNIST
from ctbench.networks import ConvSmall
from ctbench.training import load_weights

EPS = 0.1
DOMAINS: dict[str, dict[str, Any]] = {
    "interval": {},
    "crown-ibp": {},
    "coap": {},
    "crown": {},
    "alpha-crown": {"stop": 0.0},
}


@torch.no_grad()
def main() -> None:
    data = os.environ.get("CTBENCH_DATA")
    weights = Path(data or "").parent / "pretrained" / "kw_mnist.safetensors"
    if data is None or not weights.exists():
        print("\ncertified error: not run, CTBENCH_DATA names no folder next to pretrained/kw_mnist.safetensors")
        return
    model = ConvSmall().build((1, 28, 28), 10)
    load_weights(model, weights)
    x, y = MNIST().load(Path(data)).test[:]
    print(f"\nconv-small of Wong & Kolter, MNIST, {len(x)} images, linf eps {EPS} without a data range")
    print(f"{'domain':14}{'robust error %':>15}{'seconds':>9}")
    for name, options in DOMAINS.items():
        start = time.perf_counter()
        margins = ctbench.margin_bounds(model, x, y, ctbench.Linf(EPS, clip=None), domain=name, **options)
        seconds = time.perf_counter() - start
        least = margins.scatter(1, y.unsqueeze(1), torch.inf).amin(1)
        print(f"{name:14}{100 * (least <= 0).double().mean().item():15.2f}{seconds:9.1f}", flush=True)
