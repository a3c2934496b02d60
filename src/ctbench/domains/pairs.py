from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ctbench.domains import adam, crown
from ctbench.domains.linear_form import Form, LinearForm
from ctbench.domains.relaxations import adaptive
from ctbench.graph import Graph, Lines, Node
from ctbench.graph.ops import Max, ReLU
from ctbench.regions import Box, Region

WAYS = ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, -1.0))  # the sides of an octagon
SIDES = [way for way in range(4) for _ in range(2)] + [0, 1]
CROSSINGS = [
    (p, q) for p in range(10) for q in range(p) if SIDES[p] != SIDES[q]
]
ROUNDING = 16


@dataclass(frozen=True, eq=False)
class Pairs:
    index: Tensor  # [B, P, 2]
    lower: Tensor  # [B, P, 4]
    upper: Tensor

    def take(self, chosen: Tensor) -> Pairs:
        return Pairs(self.index[chosen], self.lower[chosen], self.upper[chosen])

    def within(self, box: Box) -> Pairs:
        least, greatest = (corner.flatten(1).gather(1, self.index.flatten(1)).view(self.index.shape) for corner in (box.lower, box.upper))
        lower = torch.cat([torch.maximum(self.lower[..., :2], least), self.lower[..., 2:]], -1)
        upper = torch.cat([torch.minimum(self.upper[..., :2], greatest), self.upper[..., 2:]], -1)
        return Pairs(self.index, lower, upper)

    @cached_property
    def size(self):
        return torch.maximum(self.lower[..., :2].abs(), self.upper[..., :2].abs()).amax(-1)

    @cached_property
    def corners(self):
        ways = self.lower.new_tensor(WAYS)
        sides = torch.stack([self.lower, self.upper], -1).flatten(2)
        sides = torch.cat([sides, torch.zeros_like(sides[..., :2])], -1)  # [B, P, 10]
        normal = ways[SIDES]
        first, second = torch.tensor(CROSSINGS).unbind(1)
        (m, n), c, d = (normal[first], normal[second]), sides[..., first], sides[..., second]
        det = m[:, 0] * n[:, 1] - m[:, 1] * n[:, 0]
        point = torch.stack([(c * n[:, 1] - d * m[:, 1]) / det, (d * m[:, 0] - c * n[:, 0]) / det], -1)
        along = point @ ways.T
        slack = ROUNDING * torch.finfo(point.dtype).eps * self.size[..., None, None]
        inside = ((along >= self.lower.unsqueeze(2) - slack) & (along <= self.upper.unsqueeze(2) + slack)).all(-1)
        inside |= ~inside.any(-1, keepdim=True)
        first = point.gather(2, inside.to(torch.int8).argmax(-1)[..., None, None].expand(-1, -1, 1, 2))
        point = torch.where(inside.unsqueeze(-1), point, first)
        return torch.cat([point.relu(), -point], -1)

    def spread(self, values: Tensor, shape) -> Tensor:
        """[B,P,2] -> [B, *shape]"""
        flat = values.new_zeros(len(values), math.prod(shape))
        return flat.scatter_add(1, self.index.flatten(1), values.flatten(1)).view(-1, 1, *shape)


def support(pairs: Pairs, a: Tensor, b: Tensor) -> Tensor:
    free = torch.cat([a, b], -1)
    most = (pairs.corners @ free.unsqueeze(-1)).squeeze(-1).amax(-1)
    return most + ROUNDING * torch.finfo(a.dtype).eps * pairs.size * free.abs().sum(-1)


def relaxed(form: Form, lines: Lines, pairs: Pairs, a: Tensor, b: Tensor, shape) -> Form:
    form = form + LinearForm(pairs.spread(a, shape), 0.0)
    return form.relaxed(lines) + LinearForm(-pairs.spread(b, shape), -support(pairs, a, b).sum(1, keepdim=True))


@torch.no_grad()
def choose(graph, region, inner, nodes, *, most=200, rank="area"):
    found = {}
    lines = {node: crown.lines_of(node, inner, adaptive) for node in graph.nodes if crown.relaxes(node.op)}
    relax = crown.by_lines(lines)
    for at in nodes:
        lower, upper = inner[at].lower.flatten(1), inner[at].upper.flatten(1)
        area = upper.clamp(min=0) * (-lower).clamp(min=0)
        count = min(math.ceil(2 * math.sqrt(most)) if rank != 'few' else math.ceil((1 + math.sqrt(1 + 8 * most)) / 2), int((area > 0).sum(1).amax()))
        if count < 2:
            continue
        top = area.topk(count).indices
        shape = inner[at].lower.shape
        forms = crown.back_to_input(graph, crown.neurons(top, shape[1:], lower.new_tensor([1.0, -1.0])), relax, at).dense()
        a = forms.coefficients.flatten(2); B = len(a)
        c = forms.constant
        mid, rad = region.hull.center.flatten(1), region.hull.radius.flatten(1)
        value = (a @ mid.unsqueeze(-1)).squeeze(-1) + c    # [B, 2m]
        scaled = a * rad.unsqueeze(1)
        dist = torch.cdist(scaled, -scaled, p=1)  # |A_i + A_j|_1
        low = value.unsqueeze(2) + value.unsqueeze(1) - dist  # [B, 2m, 2m]: lower bounds of +-z_i +- z_j
        l, u = lower.gather(1, top), upper.gather(1, top)
        sl = torch.cat([l, -u], 1)
        cut = (low - sl.unsqueeze(2) - sl.unsqueeze(1)).clamp(min=0)  # [B,2m,2m]
        m = count
        cuts = torch.stack([cut[:, :m, :m], cut[:, m:, m:], cut[:, :m, m:], cut[:, m:, :m]], -1)
        i, j = torch.triu_indices(m, m, 1)
        cuts = cuts[:, i, j]   # [B, M, 4]
        if rank == 'area': score = cuts.square().sum(-1)
        elif rank == 'sum': score = cuts.sum(-1)
        elif rank == 'weighted':
            w = u - l
            score = cuts.square().sum(-1) / (w[:, i] * w[:, j]).clamp(min=1e-12) * (area.gather(1, top)[:, i] * area.gather(1, top)[:, j]).sqrt()
        else: score = area.gather(1, top)[:, i] + area.gather(1, top)[:, j]
        chosen = score.topk(min(most, score.shape[1])).indices
        index = torch.stack([top.gather(1, i[chosen].view(B, -1)), top.gather(1, j[chosen].view(B, -1))], -1)
        bounds = []
        size = lower.shape[1]
        rows = []
        P = index.shape[1]
        for s in (1.0, -1.0):
            row = lower.new_zeros(B, P, size).scatter(2, index[..., :1], 1.0).scatter_add(2, index[..., 1:], torch.full_like(index[..., 1:], s, dtype=lower.dtype))
            rows += [row, -row]
        bound = crown.back_to_input(graph, LinearForm(torch.cat(rows, 1).view(B, -1, *shape[1:]), 0.0), relax, at).minimum(region)
        slo, shi, dlo, dhi = bound.chunk(4, 1)
        bl, bu = lower.gather(1, index.flatten(1)).view(index.shape), upper.gather(1, index.flatten(1)).view(index.shape)
        cheap = [low[:, :m, :m][:, i, j].gather(1, chosen), low[:, :m, m:][:, i, j].gather(1, chosen)]
        choose.stats = [(slo - cheap[0]).div((bu-bl).sum(-1)).mean().item(), (dlo - cheap[1]).div((bu-bl).sum(-1)).mean().item(), (cuts.gather(1, chosen.unsqueeze(-1).expand(-1,-1,4)).mean((0,1))/ (bu-bl).sum(-1).mean()).tolist()]
        found[at] = Pairs(index, torch.cat([bl, slo.unsqueeze(-1), dlo.unsqueeze(-1)], -1), torch.cat([bu, -shi.unsqueeze(-1), -dhi.unsqueeze(-1)], -1))
    return found


def lower_bounds(graph, region, spec, inner, pairs, *, steps=20, lr=0.1, rate=0.1, decay=0.98, unit="mean", trace=None, beta=True):
    samples, rows = spec.shape[:2]
    sample = torch.arange(samples).repeat_interleave(rows)
    region, inner = region.take(sample), [box.take(sample) for box in inner]
    pairs = {at: part.take(sample) for at, part in pairs.items()}
    for part in pairs.values(): part.corners
    start = LinearForm(spec.flatten(0, 1).unsqueeze(1), 0.0)
    lines = {node: crown.lines_of(node, inner, adaptive) for node in graph.nodes if crown.relaxes(node.op)}
    at_of = lambda node: node.inputs[0]
    relus = [node for node in graph.nodes if isinstance(node.op, ReLU)]
    values = {("s", node.inputs[0]): lines[node].lower_slope.clone() for node in relus}
    values |= {(k, at): torch.zeros_like(part.lower[..., :2]) for at, part in pairs.items() for k in "ab"}
    ranges = {node.inputs[0]: node.op.slopes(inner[node.inputs[0]].lower, inner[node.inputs[0]].upper) for node in relus}
    units = {}

    def relax(node, form):
        if isinstance(node.op, Max): return crown.under_maximum(form, lines[node])
        if not isinstance(node.op, ReLU): return form.relaxed(lines[node])
        at = node.inputs[0]
        l = lines[node]._replace(lower_slope=values["s", at])
        if at not in pairs:
            return form.relaxed(l)
        if at not in units:
            co = form.dense().coefficients.detach().abs().flatten(1)
            picked = co.gather(1, pairs[at].index.flatten(1)).view(pairs[at].index.shape)
            units[at] = {"mean": picked.mean((1, 2), keepdim=True), "pair": picked.mean(2, keepdim=True), "one": torch.ones_like(picked[:, :1, :1]), "each": picked}[unit]
        return relaxed(form, l, pairs[at], values["a", at] * units[at], values["b", at] * units[at], node.shape)

    moments = {k: (torch.zeros_like(v), torch.zeros_like(v)) for k, v in values.items()}
    best = torch.full((len(sample),), -math.inf, dtype=spec.dtype)
    for step in range(1, steps + 2):
        with torch.enable_grad():
            values = {k: v.detach().requires_grad_() for k, v in values.items()}
            bound = crown.back_to_input(graph, start, relax).minimum(region).squeeze(1)
            if step <= steps:
                grads = torch.autograd.grad(bound.sum(), list(values.values()), materialize_grads=True)
        best = torch.maximum(best, bound.detach())
        if trace is not None: trace.append(best.min().item())
        if step > steps: break
        for (k, v), g in zip(list(values.items()), grads):
            way, mean, square = adam.direction(g, *moments[k], step)
            moments[k] = mean, square
            v = v.detach() + (lr if k[0] == "s" else rate) * decay ** (step - 1) * way
            values[k] = v.clamp(*ranges[k[1]]) if k[0] == "s" else v
    lower_bounds.values, lower_bounds.units = values, units
    return best.view(samples, rows)
