"""Forwards with curves, products, quotients, norms and attention, for inputs of shape (4, 6, 8)."""

import math
import operator

import torch
import torch.nn.functional as F


def rows(x, start=0):
    """Two matrices of each sample, [B, 2, 6, 8]."""
    return x[:, start : start + 2]


def heads(m, x):
    """Attention whose queries, keys and values are parts of one tensor, with the batch moved to its second axis."""
    q, k, v = x.reshape(x.size(0), 4, 6, 2, 4)[:, :3].permute(1, 0, 3, 2, 4).unbind(0)
    return (q @ k.transpose(-2, -1) / math.sqrt(x.size(1) // 2)).softmax(-1) @ v


CURVES = {
    "torch.exp": lambda m, x: torch.exp(x),
    "exp": lambda m, x: x.exp(),
    "torch.log": lambda m, x: torch.log(x.square() + 0.1),
    "log": lambda m, x: (x.abs() + 1).log(),
    "torch.sin": lambda m, x: torch.sin(3 * x),
    "sin": lambda m, x: x.sin(),
    "torch.cos": lambda m, x: torch.cos(3 * x),
    "cos": lambda m, x: x.cos(),
    "torch.tan": lambda m, x: torch.tan(x / 8),
    "tan": lambda m, x: (x / 8).tan(),
    "torch.atan": lambda m, x: torch.atan(x),
    "torch.arctan": lambda m, x: torch.arctan(x),
    "atan": lambda m, x: x.atan(),
    "arctan": lambda m, x: x.arctan(),
    "torch.erf": lambda m, x: torch.erf(x),
    "torch.special.erf": lambda m, x: torch.special.erf(x),
    "erf": lambda m, x: x.erf(),
    "torch.sign": lambda m, x: torch.sign(x) + x,
    "torch.sgn": lambda m, x: torch.sgn(x) + x,
    "sign": lambda m, x: x.sign() + x,
    "sgn": lambda m, x: x.sgn() + x,
    "torch.floor": lambda m, x: torch.floor(3 * x) + x,
    "floor": lambda m, x: x.floor() + x,
    "torch.ceil": lambda m, x: torch.ceil(3 * x) + x,
    "ceil": lambda m, x: x.ceil() + x,
    "torch.log1p": lambda m, x: torch.log1p(x.abs()),
    "log1p": lambda m, x: x.abs().log1p(),
    "torch.expm1": lambda m, x: torch.expm1(x),
    "expm1": lambda m, x: x.expm1(),
    "torch.square": lambda m, x: torch.square(x),
    "square": lambda m, x: x.square(),
    "torch.sqrt": lambda m, x: torch.sqrt(x.abs() + 0.1),
    "sqrt": lambda m, x: (x.abs() + 0.1).sqrt(),
    "torch.rsqrt": lambda m, x: torch.rsqrt(x.abs() + 0.1),
    "rsqrt": lambda m, x: (x.abs() + 0.1).rsqrt(),
    "torch.reciprocal": lambda m, x: torch.reciprocal(x.abs() + 0.1),
    "reciprocal": lambda m, x: (x.abs() + 0.1).reciprocal(),
    "torch.pow": lambda m, x: torch.pow(x, 3),
    "pow": lambda m, x: x.pow(2).pow(1) + x.pow(0),
    "**": lambda m, x: (x.abs() + 0.1) ** 1.7,
    "F.elu": lambda m, x: F.elu(x, 0.5),
    "F.selu": lambda m, x: F.selu(x),
    "torch.selu": lambda m, x: torch.selu(x),
    "F.celu": lambda m, x: F.celu(x, 0.5),
    "torch.celu": lambda m, x: torch.celu(x),
    "F.softplus": lambda m, x: F.softplus(x, beta=2, threshold=60),
    "F.mish": lambda m, x: F.mish(x),
    "F.hardswish": lambda m, x: F.hardswish(4 * x),
    "F.hardsigmoid": lambda m, x: F.hardsigmoid(4 * x),
    "F.softsign": lambda m, x: F.softsign(x),
    "F.logsigmoid": lambda m, x: F.logsigmoid(x),
    "F.softshrink": lambda m, x: F.softshrink(x, 0.3),
    "F.prelu": lambda m, x: F.prelu(x, m.scale.view(-1)),
    "torch.prelu": lambda m, x: torch.prelu(x, m.scale.view(-1)[:1]),
    "F.gelu by tanh": lambda m, x: F.gelu(x, approximate="tanh"),
}
PRODUCTS = {
    "x * x": lambda m, x: x * x,
    "x * y": lambda m, x: x * x.flip(1),
    "x * y that broadcasts": lambda m, x: x * x[:, :1] * x[:, :, :1],
    "x *= y": lambda m, x: operator.imul(F.silu(x), x),
    "x / y": lambda m, x: x / (x.flip(1).abs() + 1),
    "x /= y": lambda m, x: operator.itruediv(F.silu(x), x.square() + 1),
    "1 / x": lambda m, x: 1 / (x.square() + 1),
    "parameter / x": lambda m, x: m.row / (x.square() + 1),
    "x @ y": lambda m, x: x @ x.transpose(-1, -2),
    "torch.matmul of values": lambda m, x: torch.matmul(rows(x), rows(x, 2).transpose(2, 3)),
    "torch.bmm": lambda m, x: torch.bmm(x[:, 0], x[:, 1].transpose(1, 2)),
    "bmm": lambda m, x: x[:, 0].bmm(x[:, 1].transpose(1, 2)),
    "weight @ x": lambda m, x: m.weight @ x.transpose(2, 3),
    "x @ vector": lambda m, x: x @ m.row,
    "torch.einsum": lambda m, x: torch.einsum("bhid,bhjd->bhij", x, x.flip(1)),
    "einsum with a weight": lambda m, x: torch.einsum("bchw,cw->bhc", x, m.pair[0, :4]),
    "sums that broadcast": lambda m, x: x + x[:, :1] - x.mean(3, keepdim=True),
    "more channels": lambda m, x: x[:, :1] * m.scale + m.with_batch,
    "maxima that broadcast": lambda m, x: torch.maximum(x, x[:, :1]),
    "maximum of a constant": lambda m, x: torch.maximum(x, m.mean),
    "minimum of a constant": lambda m, x: torch.minimum(m.std, x),
    "clamp between tensors": lambda m, x: x.clamp(-m.std, m.std),
    "cat with a constant": lambda m, x: torch.cat([m.with_batch.expand(x.size(0), -1, -1, -1), x], 1),
    "torch.prod": lambda m, x: torch.prod(x, 1),
    "prod": lambda m, x: x.prod(-1, keepdim=True) + x.prod(2, True),
    "torch.logsumexp": lambda m, x: torch.logsumexp(x, (1, 3)),
    "logsumexp": lambda m, x: x.logsumexp(2, True),
    "powers with exponents of their own": lambda m, x: (x.abs() + 0.1) ** torch.tensor([0.0, 1, 2, -1, 2, 0.5, 1, 3]),
    "powers that broadcast": lambda m, x: torch.pow(x.abs().sum(1, True) + 0.1, m.std),
    "a number to the power": lambda m, x: 2**x + torch.pow(0.5, x),
    "a constant to the power": lambda m, x: m.std**x,
    "torch.cumsum": lambda m, x: torch.cumsum(x, 2),
    "cumsum": lambda m, x: x.cumsum(dim=-1),
}
SORTED = {
    "torch.topk": lambda m, x: torch.topk(x, 3, 3)[0],
    "topk": lambda m, x: x.topk(2, dim=1, largest=False).values,
    "topk of one": lambda m, x: x.topk(1)[0],
    "torch.sort": lambda m, x: torch.sort(x, descending=True).values,
    "sort": lambda m, x: x.sort(2)[0],
    "torch.amin": lambda m, x: torch.amin(x, (1, 2)),
    "amin": lambda m, x: x.amin(-1, True),
    "greatest values": lambda m, x: x.max(1).values + torch.min(x, 1, True)[0].squeeze(1),
}
RESAMPLED = {
    "F.avg_pool1d": lambda m, x: F.avg_pool1d(x.flatten(2), 3, 2, 1, count_include_pad=False),
    "F.avg_pool2d, rounded up": lambda m, x: F.avg_pool2d(x, 5, ceil_mode=True),
    "F.avg_pool3d": lambda m, x: F.avg_pool3d(x.unsqueeze(1), 2),
    "F.adaptive_avg_pool1d": lambda m, x: F.adaptive_avg_pool1d(x.flatten(2), 5),
    "F.adaptive_avg_pool3d": lambda m, x: F.adaptive_avg_pool3d(x.unsqueeze(1), (3, 2, 5)),
    "F.interpolate": lambda m, x: F.interpolate(x, scale_factor=2),
    "F.interpolate to a size": lambda m, x: F.interpolate(x, (5, 9), mode="bilinear"),
    "F.interpolate by a fraction": lambda m, x: F.interpolate(x, scale_factor=1.3, mode="bilinear"),
    "F.interpolate with corners": lambda m, x: F.interpolate(x, (5, 9), mode="bilinear", align_corners=True),
    "torch.broadcast_to": lambda m, x: torch.broadcast_to(x[:, :1], (-1, 3, 6, 8)),
    "broadcast_to": lambda m, x: x[:, :, :1].broadcast_to((x.size(0), 4, 5, 8)),
    "torch.index_select": lambda m, x: torch.index_select(x, 1, m.order),
    "index_select": lambda m, x: x.index_select(1, m.order),
}
NORMS = {
    "torch.var": lambda m, x: torch.var(x, (2, 3)),
    "var": lambda m, x: x.var(dim=(1, 3), unbiased=False, keepdim=True) * x,
    "var with correction": lambda m, x: x.var(1, correction=0),
    "torch.norm": lambda m, x: torch.norm(x, 3, (1, 3)),
    "norm": lambda m, x: x.norm(dim=1, keepdim=True) + x.flatten(2).norm(float("inf"), -1).view(-1, 4, 1, 1),
    "torch.linalg.vector_norm": lambda m, x: torch.linalg.vector_norm(x, 1, (2, 3)),
    "torch.linalg.norm": lambda m, x: torch.linalg.norm(x, dim=(2, 3)) + torch.linalg.norm(x[:, :, 0], 0.5, 2),
    "F.pairwise_distance": lambda m, x: F.pairwise_distance(x, 2 * x.flip(1), p=4),
    "F.normalize by another norm": lambda m, x: F.normalize(x, p=1, dim=2) + F.normalize(x, math.inf),
    "F.local_response_norm": lambda m, x: F.local_response_norm(x, 2, 0.5, k=0.75),
    "F.local_response_norm over three": lambda m, x: F.local_response_norm(x, 3, beta=0.5),
    "torch.std": lambda m, x: torch.std(x, -1),
    "std": lambda m, x: x.std(dim=1, keepdim=True) + x,
    "F.normalize": lambda m, x: F.normalize(x, dim=1),
    "F.cosine_similarity": lambda m, x: F.cosine_similarity(x, x.flip(3), dim=-1),
    "torch.cosine_similarity": lambda m, x: torch.cosine_similarity(x, m.with_batch, 1),
    "F.glu": lambda m, x: F.glu(x, 1),
    "torch.softmax": lambda m, x: torch.softmax(x, -1),
    "F.softmax": lambda m, x: F.softmax(3 * x, dim=1),
    "softmax": lambda m, x: x.softmax(2),
    "torch.log_softmax": lambda m, x: torch.log_softmax(x, 1),
    "F.log_softmax": lambda m, x: F.log_softmax(x, dim=-1),
    "log_softmax": lambda m, x: x.log_softmax(2),
    "F.layer_norm": lambda m, x: F.layer_norm(x, (8,), m.row, m.row),
    "F.layer_norm of two axes": lambda m, x: F.layer_norm(x, (6, 8), m.pair[0], None),
    "F.group_norm": lambda m, x: F.group_norm(x, 2, m.scale.view(-1), m.scale.view(-1)),
    "F.instance_norm": lambda m, x: F.instance_norm(x),
    "F.scaled_dot_product_attention": lambda m, x: F.scaled_dot_product_attention(x, 2 * x, x.flip(1)),
    "causal attention": lambda m, x: F.scaled_dot_product_attention(x, x, x, is_causal=True, scale=0.5),
    "attention with a mask": lambda m, x: F.scaled_dot_product_attention(
        x, x, x, attn_mask=torch.ones(6, 6, dtype=torch.bool).triu(-2)
    ),
    "heads of one tensor": heads,
}
if hasattr(F, "rms_norm"):
    NORMS["F.rms_norm"] = lambda m, x: F.rms_norm(x, (8,), m.row, 1e-6)
ROUNDED = {"F.hardsigmoid"}  # torch's gradient is rounded to single precision
EXAMPLES = CURVES | PRODUCTS | SORTED | RESAMPLED | NORMS
