"""Does the theory of "Certified defences can hurt generalisation" hold? Its one-neuron network, in closed form.

The distribution is linearly separable, y = -1 or 1 with equal probability, and the adversary moves the signal x_1:

    x = [gamma y; N(0, sigma^2 I_{d-1})],   z = x + beta e_1 with |beta| <= eps                           Eq. (3)
    f(x) = a ReLU(<theta, x>) + b,          only theta_1 is trained                                       Eq. (11)
    J(x, y) = min over z of y f(z),         J~(x, y) <= J(x, y) the dual bound of COAP                    Eq. (41, 49)
    AT:   theta_1 - rate E[d/dtheta_1 log(1 + exp(-J))],      COAP: the same with J~                      App. B
    Theorem 4.2: after the step the robust risk of COAP is above that of AT, if
                 ||theta_2:d|| / |theta_1| > sqrt(24 gamma^3 / sigma^2) and 2/3 gamma < eps < gamma       Eq. (13)

Implicit in the paper:
- Signs. The proofs assume theta_1 > 0, a > 0 and b < 0; theta_1 < 0, a < 0 and b > 0 is the mirror image. With a b > 0
  the sign of f is that of b, and no step changes the risk.
- The cross-entropy, Eq. (35), needs a minus sign, as used in Prop. B.1 and B.2: its gradients are those of
  log(1 + exp(-J)).
- The step may be of any size: with eps |theta_1| instead of eps theta_1, Lemma B.1 holds for both signs of theta_1.
- COAP's free slope, the alpha of Eq. (10), is that of Wong & Kolter, u / (u - l). The best slope is 0; it gives J~ = J.
  With CROWN's slope, 1 where u > -l and 0 elsewhere, the order is reversed: the gradient on I* is negative or 0.

Eq. (13) depends on the units: r = ||theta_2:d|| / |theta_1| has no unit, but sqrt(gamma^3) / sigma has one. In other
units of x (gamma, sigma, eps times s, theta divided by s) the network, its risk and the sign of each gradient do not
change, but Eq. (13) may become true or false. So it is not sufficient if gamma is small. The following condition is
sufficient for any eps < gamma. It is ours, not from the paper:

    sigma ||theta_2:d|| >= gamma |theta_1|

Proof: AT and COAP differ only on I*, where the neuron is unstable and a y > 0. There <theta_2:d, x_2:d> =
-|theta_1| (gamma + s) with |s| < eps, J~ is even in s, the density is even except for exp(-gamma s / (sigma r)^2), and

    d/d|theta_1| log(1 + exp(-J~)) = |a| sigmoid(-J~) (s^2 + eps^2 + 2 gamma s) / (2 eps),       0 for J.

The sum of the contributions of s and -s is positive if tanh(gamma s / (sigma r)^2) < (s^2 + eps^2) / (2 gamma s), and
this follows from tanh(v) < v, gamma <= sigma r and s < eps. Eq. (13) implies the condition if gamma >= 1/24.

    neuron, task = Neuron(theta=theta, a=1.0, b=-1.0), Task(gamma=1.0, sigma=1.0, eps=0.8)
    adversarial = step(neuron, expected_gradient(adversarial_gradient, neuron, task), rate=0.1)
    certified = step(neuron, expected_gradient(coap_gradient, neuron, task), rate=0.1)
    robust_risk(certified, task) > robust_risk(adversarial, task)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

REACH = 12.0  # the quadrature ends at this many standard deviations, where the density is 1e-32


@dataclass(frozen=True, kw_only=True)
class Task:
    """The linearly separable distribution, and the radius eps by which the adversary moves the first coordinate."""

    gamma: float
    sigma: float
    eps: float

    def __post_init__(self) -> None:
        for name, value in (("gamma", self.gamma), ("sigma", self.sigma), ("eps", self.eps)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} is {value}: give a positive number")

    def sample(self, count: int, dimension: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Inputs [count, dimension] and their labels [count], -1 or 1, in double precision."""
        y = 2.0 * torch.randint(2, (count,), generator=generator, dtype=torch.float64) - 1
        noise = torch.randn(count, dimension - 1, generator=generator, dtype=torch.float64)
        return torch.cat([self.gamma * y.unsqueeze(1), self.sigma * noise], dim=1), y


@dataclass(frozen=True, kw_only=True, eq=False)
class Neuron:
    """f(x) = a ReLU(<theta, x>) + b, Eq. (11)."""

    theta: Tensor  # [d], in double precision
    a: float
    b: float

    def __post_init__(self) -> None:
        if self.theta.dim() != 1 or len(self.theta) < 2 or self.theta.dtype != torch.float64:
            kind = f"{self.theta.dtype} of the shape {list(self.theta.shape)}"
            raise ValueError(f"theta is {kind}: give [d] with d >= 2, in double precision")
        if not (self.theta[0] != 0 and self.theta[1:].any()):
            raise ValueError("theta_1 or all of theta_2:d are 0: give other weights, the theory divides by their norms")
        if not self.a * self.b < 0:
            raise ValueError(
                f"a is {self.a} and b is {self.b}: give them opposite signs, otherwise f has the sign of b everywhere"
            )

    def __call__(self, x: Tensor) -> Tensor:
        """[B, d] to [B]."""
        return self.a * (x @ self.theta).relu() + self.b

    @property
    def ratio(self) -> float:
        """r = ||theta_2:d|| / |theta_1|."""
        return float(self.theta[1:].norm() / self.theta[0].abs())


def has_signs_of_proof(neuron: Neuron) -> bool:
    """Whether a theta_1 > 0, an assumption of the proofs (a b < 0 holds for every `Neuron`)."""
    return bool(neuron.a * neuron.theta[0] > 0)


def meets_assumption(neuron: Neuron, task: Task) -> bool:
    """Eq. (13), the assumption of Theorem 4.2 as the paper states it."""
    noisy = neuron.ratio > math.sqrt(24 * task.gamma**3) / task.sigma
    return noisy and 2 / 3 * task.gamma < task.eps < task.gamma


def meets_condition(neuron: Neuron, task: Task) -> bool:
    """sigma ||theta_2:d|| >= gamma |theta_1| and eps < gamma, the condition that holds in any units (ours)."""
    return task.sigma * neuron.ratio >= task.gamma and task.eps < task.gamma


def robust_risk(neuron: Neuron, task: Task) -> float:
    """The probability that some perturbation is misclassified, Lemma B.1 (Eq. 39).

    With t = -b / a > 0 and s = sigma ||theta_2:d||:

        R = (Phi((-m - t) / s) + Phi((-m + t) / s)) / 2,   m = sgn(a) gamma theta_1 - eps |theta_1|

    The paper's m is (gamma - eps) theta_1, for a, theta_1 > 0. R decreases in m, and for eps < gamma m increases in
    sgn(a) theta_1.
    """
    theta_1, offset = float(neuron.theta[0]), neuron.b / neuron.a
    reach = math.copysign(task.gamma, neuron.a) * theta_1 - task.eps * abs(theta_1)
    scale = task.sigma * float(neuron.theta[1:].norm())
    return (_normal_cdf((-reach + offset) / scale) + _normal_cdf((-reach - offset) / scale)) / 2


def _normal_cdf(value: float) -> float:
    return math.erfc(-value / math.sqrt(2)) / 2


def sampled_robust_risk(neuron: Neuron, task: Task, x: Tensor, y: Tensor) -> float:
    """The share of samples with an end of the segment that is misclassified; f is monotone along the segment.

    Args:
        neuron: the network.
        task: only its eps is used.
        x: the inputs, [B, d].
        y: their labels, [B], -1 or 1.
    """
    ends = torch.zeros(2, 1, x.shape[1], dtype=x.dtype)
    ends[0, 0, 0], ends[1, 0, 0] = -task.eps, task.eps
    return float((y * neuron(x + ends) <= 0).any(0).double().mean())


def pre_activation_bounds(weight: Tensor, bias: Tensor, x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """l and u = W_1 x + b_1 -+ eps |w_1| with w_1 the first column of W_1, Prop. A.1.

    Args:
        weight: W_1, [H, d].
        bias: b_1, [H].
        x: the inputs, [B, d].
        eps: how far the first coordinate moves.

    Returns:
        l and u, [B, H] each.
    """
    middle, radius = x @ weight.T + bias, eps * weight[:, 0].abs()
    return middle - radius, middle + radius


def dual_bound(
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    x: Tensor,
    c: Tensor,
    eps: float,
    *,
    alpha: Tensor | float | None = None,
) -> Tensor:
    """A lower bound of <c, W_2 ReLU(W_1 z + b_1) + b_2> over z = x + beta e_1, Theorem 4.1 (Eq. 9 and 10).

        nu_3 = -c,   nu^_2 = W_2^T nu_3,   nu^_1 = W_1^T nu_2
        nu_2 = 0 where u <= 0,   nu^_2 where l >= 0,   u / (u - l) [nu^_2]_+ - alpha [nu^_2]_- elsewhere
        J~   = -<nu_2, b_1> - <nu_3, b_2> + sum over unstable j of l_j [nu_2j]_+ - <nu^_1, x> - eps |nu^_11|

    Args:
        first: W_1 [H, d] and b_1 [H].
        second: W_2 [K, H] and b_2 [K].
        x: the inputs, [B, d].
        c: one linear form of the output per sample, [B, K].
        eps: how far the first coordinate moves.
        alpha: the free slopes in [0, 1], [B, H] or one number; None uses u / (u - l), like Wong & Kolter.

    Returns:
        The bounds, [B].
    """
    lower, upper = pre_activation_bounds(*first, x, eps)
    chord = upper / (upper - lower)
    free = chord if alpha is None else alpha
    incoming = -c @ second[0]
    relaxed = torch.where((lower < 0) & (upper > 0), chord * incoming.relu() - free * (-incoming).relu(), incoming)
    nu_2 = torch.where(upper <= 0, 0.0, relaxed)
    nu_1 = nu_2 @ first[0]
    offset = (lower.clamp(max=0) * nu_2.relu()).sum(1) - nu_2 @ first[1] + c @ second[1]
    return offset - (nu_1 * x).sum(1) - eps * nu_1[:, 0].abs()


def adversarial_margin(neuron: Neuron, task: Task, x: Tensor, y: Tensor) -> Tensor:
    """J = y (b + a max(0, l)) where a y > 0, and y (b + a max(0, u)) elsewhere, Eq. (43): [B, d] and [B] to [B]."""
    lower, upper = _neuron_bounds(neuron, task, x)
    return y * (neuron.b + neuron.a * torch.where(neuron.a * y > 0, lower, upper).relu())


def coap_margin(neuron: Neuron, task: Task, x: Tensor, y: Tensor, *, alpha: Tensor | float | None = None) -> Tensor:
    """J~, the dual bound with c = y, Eq. (49): [B, d] and [B] to [B]; alpha is [B, 1], as in `dual_bound`."""
    out = x.new_tensor([[neuron.a]]), x.new_tensor([neuron.b])
    return dual_bound((neuron.theta.unsqueeze(0), x.new_zeros(1)), out, x, y.unsqueeze(1), task.eps, alpha=alpha)


def adversarial_gradient(neuron: Neuron, task: Task, x: Tensor, y: Tensor) -> Tensor:
    """The derivative of log(1 + exp(-J)) by theta_1, Prop. B.1: [B, d] and [B] to [B].

    -y sigmoid(-J) a (x_1 - eps sgn(theta_1)) 1{l > 0} where a y > 0
    -y sigmoid(-J) a (x_1 + eps sgn(theta_1)) 1{u > 0} elsewhere
    """
    lower, upper = _neuron_bounds(neuron, task, x)
    push = task.eps * neuron.theta[0].sign()
    end = torch.where(neuron.a * y > 0, (x[:, 0] - push) * (lower > 0), (x[:, 0] + push) * (upper > 0))
    return -y * (-adversarial_margin(neuron, task, x, y)).sigmoid() * neuron.a * end


def coap_gradient(neuron: Neuron, task: Task, x: Tensor, y: Tensor) -> Tensor:
    """The derivative of log(1 + exp(-J~)) by theta_1, Prop. B.2: [B, d] and [B] to [B].

    Where l < 0 < u and a y > 0, with J~ = y (b + a u l / (2 eps |theta_1|)) (Eq. 61),

        -a y sigmoid(-J~) / (2 eps) (l (x_1 + eps sgn(theta_1)) / |theta_1|
                                     + u (x_1 |theta_1| - <theta, x> sgn(theta_1)) / theta_1^2)

    and elsewhere the derivative of Prop. B.1.
    """
    lower, upper = _neuron_bounds(neuron, task, x)
    theta_1, x_1 = neuron.theta[0], x[:, 0]
    size, sign = theta_1.abs(), theta_1.sign()
    slope = lower * (x_1 + task.eps * sign) / size + upper * (x_1 * size - (x @ neuron.theta) * sign) / theta_1**2
    relaxed = -neuron.a * y * (-coap_margin(neuron, task, x, y)).sigmoid() / (2 * task.eps) * slope
    differ = (lower < 0) & (upper > 0) & (neuron.a * y > 0)
    return torch.where(differ, relaxed, adversarial_gradient(neuron, task, x, y))


def _neuron_bounds(neuron: Neuron, task: Task, x: Tensor) -> tuple[Tensor, Tensor]:
    """l and u, [B] each."""
    lower, upper = pre_activation_bounds(neuron.theta.unsqueeze(0), x.new_zeros(1), x, task.eps)
    return lower.squeeze(1), upper.squeeze(1)


def weighted_inputs(neuron: Neuron, task: Task, *, panels: int = 400) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs [B, d], labels [B] and weights [B]: weighted sums are expectations of functions of <theta, x> and y.

    Since <theta_2:d, x_2:d> = sigma ||theta_2:d|| z with a standard normal z, inputs along theta_2:d suffice. In z they
    are Gauss-Legendre nodes, eight on each panel. The points where l or u is 0 are ends of panels.

    Args:
        neuron: the network.
        task: the distribution.
        panels: the number of panels; if |a| sigma ||theta_2:d|| is above 100, the sigmoid is steep and needs more.
    """
    tail = neuron.theta[1:]
    kinks = (
        torch.tensor([task.gamma - task.eps, task.gamma + task.eps], dtype=torch.float64) / task.sigma / neuron.ratio
    )
    grid = torch.linspace(-REACH, REACH, panels + 1, dtype=torch.float64)
    edges = torch.cat([grid, kinks, -kinks]).clamp(-REACH, REACH).sort().values
    points, shares = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(8))
    half = (edges[1:] - edges[:-1]).unsqueeze(1) / 2
    z = (edges[:-1].unsqueeze(1) + half * (1 + points)).flatten()
    weights = (half * shares).flatten() * (-(z**2) / 2).exp() / math.sqrt(2 * math.pi)
    noise = task.sigma * z.unsqueeze(1) * tail / tail.norm()
    inputs = [torch.cat([torch.full_like(noise[:, :1], y * task.gamma), noise], dim=1) for y in (-1, 1)]
    y = torch.cat([-torch.ones_like(z), torch.ones_like(z)])
    return torch.cat(inputs), y, torch.cat([weights, weights]) / 2


def expected_gradient(
    gradient: Callable[[Neuron, Task, Tensor, Tensor], Tensor], neuron: Neuron, task: Task, *, panels: int = 400
) -> float:
    """The expectation of `adversarial_gradient` or `coap_gradient` over the distribution, by quadrature."""
    x, y, weights = weighted_inputs(neuron, task, panels=panels)
    return float((weights * gradient(neuron, task, x, y)).sum())


def step(neuron: Neuron, gradient: float, *, rate: float) -> Neuron:
    """The network after a step of gradient descent on theta_1, Eq. (40)."""
    return replace(neuron, theta=torch.cat([neuron.theta[:1] - rate * gradient, neuron.theta[1:]]))
