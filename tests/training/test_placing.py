"""Where the data of a run lie."""

import pytest
import torch

from ctbench import memory_budget
from ctbench.datasets import Images
from ctbench.training import placing

ELSEWHERE = torch.device("meta")  # a device without values
SIZE = 10 * 16 + 10 * 8  # bytes


@pytest.fixture
def images() -> Images:
    return Images(torch.arange(160, dtype=torch.uint8).view(10, 1, 4, 4), torch.arange(10))


@pytest.mark.parametrize(
    ("free", "where"),
    [(None, "meta"), (SIZE / placing.SHARE, "meta"), (SIZE / placing.SHARE - 1, "cpu")],
    ids=["unknown", "enough", "too little"],
)
def test_images_go_to_the_device_if_they_fit(images, monkeypatch, free, where):
    monkeypatch.setattr(memory_budget, "free_memory", lambda device: free)
    placed = placing.placed(images, ELSEWHERE)
    assert placed.inputs.device.type == placed.labels.device.type == where
    x, y = placed.batch(torch.tensor([3, 1], device=where), ELSEWHERE)
    assert x.device == y.device == ELSEWHERE
    assert (x.dtype, y.dtype, tuple(x.shape)) == (torch.float32, torch.int64, (2, 1, 4, 4))


def test_a_batch_is_what_indexing_gives(images):
    index = torch.tensor([3, 1])
    (x, y), (expected, labels) = images.batch(index, torch.device("cpu")), images[index]
    assert torch.equal(x, expected)
    assert torch.equal(y, labels)
    assert x[0, 0, 0, 0] == torch.tensor(48) / 255


def test_the_memory_of_a_cpu_is_not_asked_for():
    assert memory_budget.free_memory(torch.device("cpu")) is None
