"""Forwards with constants that torch computes, with tensors made of shapes, and with masks, for inputs (4, 6, 8)."""

import math

import torch
import torch.nn.functional as F

PLACES = torch.tensor([[2, 0, 5], [1, 1, 4]]).repeat(2, 1).view(1, 4, 3, 1)
CAUSAL = torch.ones(6, 6, dtype=torch.bool).triu(1)
SCORES = torch.zeros(6, 6, dtype=torch.float64).masked_fill(CAUSAL, -math.inf)


def scores(x):
    return x @ x.transpose(-2, -1)


def written(m, x):
    """A mask that is written into the scores, as a statement."""
    found = scores(x)
    found.masked_fill_(CAUSAL, -torch.inf)
    return torch.softmax(found / 8**0.5, dim=-1) @ x


SHAPED = {
    "torch.zeros_like": lambda m, x: torch.cat([x, torch.zeros_like(x)], 1) + torch.zeros_like(m.row),
    "torch.ones_like": lambda m, x: x + torch.cumsum(torch.ones_like(x[:, :1]), 2),
    "torch.full_like": lambda m, x: torch.maximum(x, torch.full_like(x[:, :, 0], 0.25).unsqueeze(2)),
    "a mask of ones": lambda m, x: torch.where(torch.ones_like(x, dtype=torch.bool).triu(), x, torch.zeros_like(x)),
    "zeros of a value whose batch is moved": lambda m, x: x + torch.zeros_like(x.transpose(0, 1)).transpose(0, 1),
    "new_zeros": lambda m, x: torch.cat([x, x.new_zeros(x.shape[0], 1, 6, 8)], 1) + x.new_zeros(8),
    "new_ones": lambda m, x: x * x.new_ones(x.shape) + x.new_ones((6, 8), dtype=torch.int64),
    "new_full": lambda m, x: x * x.new_full((x.size(0), 4, 6, 8), 1.5),
    "new_tensor": lambda m, x: x + x.new_tensor([0.5] * 8),
}
TAKEN = {
    "torch.gather": lambda m, x: torch.gather(x, 2, PLACES.expand(x.shape[0], -1, -1, 8)),
    "gather": lambda m, x: x.gather(-2, PLACES.expand(len(x), 4, 3, 5)),
    "torch.take_along_dim": lambda m, x: torch.take_along_dim(x, PLACES, dim=2),
    "take_along_dim": lambda m, x: x.take_along_dim(PLACES[:, :, :, :1], 2),
}
PLACED = {
    "torch.select_scatter": lambda m, x: torch.select_scatter(x, 2 * x[:, 0], 1, 2),
    "select_scatter": lambda m, x: x.select_scatter(x[:, :, :, 3] * x[:, :, :, 0], -1, 3),
    "torch.slice_scatter": lambda m, x: torch.slice_scatter(x, m.pair[:1, :1] * x[:, 2:], 1, 0, 2),
    "slice_scatter": lambda m, x: x.slice_scatter(x[:, :, :3], dim=2, start=0, end=6, step=2),
    "torch.diagonal_scatter": lambda m, x: torch.diagonal_scatter(x, x[:, :, 0].transpose(1, 2), 0, 1, 2),
    "diagonal_scatter": lambda m, x: x.diagonal_scatter(torch.zeros_like(x[..., 0]), 1, dim1=2, dim2=3),
}
# functions of parameters, which follow the training
COMPUTED = {
    "weights of length 1": lambda m, x: F.linear(x, F.normalize(m.weight)),
    "weights that are standardised": lambda m, x: F.conv2d(
        x, (m.kernel - m.kernel.mean((1, 2, 3), True)) / m.kernel.std((1, 2, 3), keepdim=True)
    ),
    "an exponential": lambda m, x: x * m.scale.exp(),
    "sums and multiples": lambda m, x: x * (m.row + m.table[0]) + (m.row * 2 - 1),
    "a softmax": lambda m, x: x * m.row.softmax(0) + torch.relu(m.pair).sum((0, 1)),
    "a parameter less": lambda m, x: x - m.row,
    "by a parameter": lambda m, x: x / m.row,
    "a copied parameter": lambda m, x: x * m.row.flip(0) + m.row.repeat(6, 1),
    "a split parameter": lambda m, x: x[:, 0] * m.pair.unbind(0)[0] + m.pair.chunk(2)[1],
    "alpha of a parameter": lambda m, x: torch.add(x, m.row, alpha=2).sub(m.scale, alpha=3),
    "a sorted parameter": lambda m, x: x * m.row.sort()[0] + m.row.topk(8).values,
    "a parameter chosen by a mask": lambda m, x: torch.where(m.mean > 0.5, x, m.row.expand(1, 4, 6, 8)),
    "types": lambda m, x: x * (m.row > 0).to(x.dtype) + (m.row > 0).float() + m.count.to(x.device),
    "a joined parameter": lambda m, x: F.linear(x, torch.cat([m.weight, m.weight.abs()], 0)),
    "a power of a parameter": lambda m, x: (m.row.abs() + 0.5) ** x,
    "cosines with a parameter": lambda m, x: F.cosine_similarity(x, m.pair[0], dim=-1),
    "distances from a parameter": lambda m, x: F.pairwise_distance(x, m.row, p=4),
}
MASKED = {
    "masked_fill by -inf": lambda m, x: scores(x).masked_fill(CAUSAL, float("-inf")).softmax(-1) @ x,
    "torch.masked_fill by -inf": lambda m, x: torch.softmax(
        torch.masked_fill(scores(x), CAUSAL[None, None], -torch.inf) / 8, dim=-1
    ),
    "a mask that is added": lambda m, x: F.softmax(SCORES + scores(x), dim=-1) @ x,
    "a mask that is added in place": lambda m, x: F.softmax((scores(x) + 0).add_(SCORES), dim=-1) @ x,
    "a mask that is chosen": lambda m, x: torch.where(~CAUSAL, scores(x), -torch.inf).softmax(-1),
    "a mask and a bias": lambda m, x: torch.softmax(scores(x) + SCORES + m.pair[0, :6, :6], -1) @ x,
    "two masks": lambda m, x: (
        (0.5 * scores(x)).masked_fill(CAUSAL, -math.inf).masked_fill(CAUSAL.tril(2).flip(0, 1), -math.inf).softmax(3)
    ),
    "a mask with values that are added": lambda m, x: (SCORES[:, None, 5] + x[..., :6] + x[..., 2:]).softmax(2),
    "a mask along another axis": lambda m, x: x.masked_fill(torch.arange(4).view(4, 1, 1) > 1, -math.inf).softmax(1),
    "a mask that leaves all": lambda m, x: scores(x).masked_fill(CAUSAL & False, -math.inf),
    "a mask written into scores": written,
    "a mask of an attention": lambda m, x: F.scaled_dot_product_attention(x, x, x, attn_mask=SCORES),
    "a mask of another type": lambda m, x: (scores(x).masked_fill(CAUSAL, -math.inf) * m.std).double().softmax(-1),
}
EXAMPLES = SHAPED | TAKEN | PLACED | COMPUTED | MASKED
