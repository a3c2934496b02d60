"""Two distributions of vectors with a known signal: concentric spheres, and two points in noise.

    spheres:    x uniform on the sphere of radius R_y about 0,   R_1 = R_0 + gamma
    separable:  x = [gamma (2 y - 1); N(0, sigma^2 I_{d-1})];    y in {0, 1} with equal probability

"How robust accuracy suffers from certified training with convex relaxations", section 3.1, and "Certified defences can
hurt generalisation", section 3; the spheres are those of Gilmer et al. 2018, "Adversarial spheres". The seed determines
every sample of a data set, and the test set is the same for every size of the training set.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ctbench.datasets.base import Data, Dataset, Vectors


@dataclass(frozen=True, kw_only=True)
class Synthetic(Dataset):
    """Samples of a distribution of vectors with two classes. There is no data range: threat models need clip=None.

    Args:
        dimension: the dimension d of the vectors.
        samples: the number of training samples.
        test_samples: the number of test samples.
        seed: the seed of all samples.

    Raises:
        ValueError: a number is too small, or not finite.
    """

    dimension: int
    samples: int
    test_samples: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dimension < 2 or self.samples < 1 or self.test_samples < 1 or not 0 <= self.seed < 2**31:
            raise ValueError(
                f"dimension is {self.dimension}, samples {self.samples}, test_samples {self.test_samples} and seed "
                f"{self.seed}: give at least 2, 1, 1 and 0"
            )

    @abstractmethod
    def draw(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """A sample for each label in {0, 1}, [N] to [N, d], in double precision."""

    @abstractmethod
    def signal(self, x: Tensor, y: Tensor) -> Tensor:
        """The signal of each sample, a unit vector, [N, d]: the nearest sample of the other class is against it."""

    def load(self, root: Path | None = None) -> Data:
        """Draw the samples; `root` is not used."""
        parts = []
        for stream, count in enumerate((self.samples, self.test_samples)):
            generator = torch.Generator().manual_seed(2 * self.seed + stream)
            labels = torch.randint(2, (count,), generator=generator)
            parts.append(Vectors(self.draw(labels, generator).float(), labels))
        return Data(train=parts[0], test=parts[1], class_names=("0", "1"))


@dataclass(frozen=True, kw_only=True)
class Spheres(Synthetic):
    """Concentric spheres.

    Args:
        inner_radius: R_0. The papers do not give their value.
        margin: gamma, the outer radius minus the inner radius.
    """

    name: ClassVar[str] = "spheres"
    dimension: int = 10
    samples: int = 500
    inner_radius: float = 10.0
    margin: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive(self, "inner_radius", "margin")

    def draw(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        directions = torch.randn(len(labels), self.dimension, generator=generator, dtype=torch.float64)
        radii = self.inner_radius + self.margin * labels
        return F.normalize(directions) * radii.unsqueeze(1)

    def signal(self, x: Tensor, y: Tensor) -> Tensor:
        """(2 y - 1) x / |x|."""
        return F.normalize(x) * (2 * y - 1).unsqueeze(1).to(x)


@dataclass(frozen=True, kw_only=True)
class Separable(Synthetic):
    """Two values of the first coordinate, and Gaussian noise in all others.

    Args:
        margin: gamma; the classes are 2 gamma apart.
        sigma: the standard deviation of the noise. The paper does not give its value.
    """

    name: ClassVar[str] = "separable"
    dimension: int = 1000
    samples: int = 50
    margin: float = 6.0
    sigma: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_positive(self, "margin", "sigma")

    def draw(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(len(labels), self.dimension - 1, generator=generator, dtype=torch.float64)
        return torch.cat([self.margin * (2 * labels - 1).unsqueeze(1).double(), self.sigma * noise], dim=1)

    def signal(self, x: Tensor, y: Tensor) -> Tensor:
        """(2 y - 1) e_1."""
        direction = torch.zeros_like(x)
        direction[:, 0] = (2 * y - 1).to(x)
        return direction


def _check_positive(data: Synthetic, *names: str) -> None:
    for name in names:
        value = getattr(data, name)
        if not 0 < value < math.inf:
            raise ValueError(f"{name} is {value}: it must be a number > 0")
