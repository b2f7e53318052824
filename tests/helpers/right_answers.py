"""For each exercise, right answers that differ in how they are made: from torch's own tools, and by hand."""

import copy
import math

import experiment_answers
import numpy as np
import torch
from fixed_creatures import FIXES, fixed
from torch import nn
from torch.autograd.gradcheck import GradcheckError
from torch.nn import functional as F
from wrong_answers import AXES, block, conv_norm_relu, layer

import bncourse
from bncourse import functional, surgery


def axes_of(x):
    return (0, *range(2, x.dim()))


def by_channel(v, x):
    return v.reshape(1, -1, *[1] * (x.dim() - 2))


def by_layer(x, w, b, eps):
    norm = (nn.BatchNorm1d if x.dim() == 2 else nn.BatchNorm2d)(x.shape[1], eps=eps)
    with torch.no_grad():
        norm.weight.copy_(w), norm.bias.copy_(b)
    return norm(x)


def by_flat(x, w, b, eps):
    flat = x.transpose(0, 1).flatten(1)
    centred = flat - flat.mean(1, keepdim=True)
    y = centred / (centred.pow(2).mean(1, keepdim=True) + eps) ** 0.5
    y = y.reshape(x.transpose(0, 1).shape).transpose(0, 1)
    return y * by_channel(w, x) + by_channel(b, x)


def update_by_torch(mean, var, x, momentum):
    mean, var = mean.clone(), var.clone()
    F.batch_norm(x.detach(), mean, var, training=True, momentum=momentum)
    return mean, var


def update_by_lerp(mean, var, x, momentum):
    x = x.detach().transpose(0, 1).flatten(1)
    return mean.lerp(x.mean(1), momentum), var.lerp(x.var(1), momentum)


@torch.no_grad()
def update_by_hand(mean, var, x, momentum):
    n = x.numel() // x.shape[1]
    m = x.sum(axes_of(x)) / n
    v = (x - by_channel(m, x)).square().sum(axes_of(x)) / (n - 1)
    return [(1 - momentum) * mean + momentum * m, (1 - momentum) * var + momentum * v]


def count_steps(fraction, momentum):
    left, steps = 1.0, 0
    while 1 - left < fraction - 1e-12:
        left *= 1 - momentum
        steps += 1
    return steps


def accuracy_by_course(model, images, labels, batch_size):
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    pairs = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    with torch.inference_mode():
        right = sum((model(x).argmax(1) == y).sum() for x, y in pairs)
    for m, mode in modes:
        m.training = mode
    return right / len(labels)


def accuracy_of_a_copy(model, images, labels, batch_size=256):
    model = copy.deepcopy(model).eval()
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size)
    with torch.no_grad():
        return np.mean([hit for x, y in data for hit in (model(x).argmax(-1) == y).tolist()])


def accuracy_with_care(model, images, labels, batch_size=256):
    modes = {name: m.training for name, m in model.named_modules()}
    try:
        model.eval()
        with torch.no_grad():
            scores = torch.cat([model(images[i : i + batch_size]) for i in range(0, len(images), batch_size)])
        return (scores.max(1).indices == labels).float().mean()
    finally:
        for name, m in model.named_modules():
            m.training = modes[name]


def block_of_course(inputs, outputs, kernel=3):
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, bncourse.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Block(nn.Module):
    def __init__(self, inputs, outputs, kernel):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding="same", bias=False)
        self.norm, self.act = nn.BatchNorm2d(outputs), nn.ReLU()

    def forward(self, x):
        return self.act(self.norm(self.conv(x)))


def group_norm_by_loops(x, groups, weight, bias, eps):
    parts = [F.layer_norm(part, part.shape[1:], eps=eps) for part in x.chunk(groups, 1)]
    return torch.cat(parts, 1) * by_channel(weight, x) + by_channel(bias, x)


def group_norm_five_axes(x, groups, weight, bias, eps):
    n, c, h, w = x.shape
    y = x.view(n, groups, c // groups, h, w)
    y = (y - y.mean((2, 3, 4), keepdim=True)) * (y.var((2, 3, 4), correction=0, keepdim=True) + eps).rsqrt()
    return y.view(n, c, h, w) * weight.view(1, c, 1, 1) + bias.view(1, c, 1, 1)


def two_by_torch(a, b, eps):
    x = torch.tensor([[a], [b]], dtype=torch.float64)
    return tuple(F.batch_norm(x, None, None, training=True, eps=eps).flatten().tolist())


def two_by_numpy(a, b, eps):
    x = np.array([a, b])
    return tuple((x - x.mean()) / np.sqrt(x.var() + eps))


def chapter_8(model, batches, optimizer, steps):
    for start in range(0, len(batches), steps):
        window = batches[start : start + steps]
        total = sum(len(labels) for _, labels in window)
        optimizer.zero_grad()
        for inputs, labels in window:
            (F.cross_entropy(model(inputs), labels, reduction="sum") / total).backward()
        optimizer.step()


def divide_gradients(model, batches, optimizer, steps):
    optimizer.zero_grad()
    samples = 0
    for i, (x, y) in enumerate(batches, 1):
        F.cross_entropy(model(x), y, reduction="sum").backward()
        samples += len(y)
        if i % steps == 0 or i == len(batches):
            for p in model.parameters():
                p.grad.div_(samples)
            optimizer.step()
            optimizer.zero_grad(set_to_none=False)
            samples = 0


def shares(model, batches, optimizer, steps):
    while batches:
        window, batches = batches[:steps], batches[steps:]
        sizes = [len(y) for _, y in window]
        for (x, y), size in zip(window, sizes, strict=True):
            loss = F.cross_entropy(model(x), y) * size / sum(sizes)
            loss.backward()
        optimizer.step()
        model.zero_grad()


class ByMoving(nn.Module):
    def __init__(self, n, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.m = eps, momentum
        self.weight, self.bias = nn.Parameter(torch.ones(n)), nn.Parameter(torch.zeros(n))
        self.register_buffer("running_mean", torch.zeros(n))
        self.register_buffer("running_var", torch.ones(n))

    def forward(self, x):
        x = x.movedim(1, -1)
        if not self.training:
            y = (x - self.running_mean) / torch.sqrt(self.running_var + self.eps)
            return (y * self.weight + self.bias).movedim(-1, 1)
        mean = x.mean((0, 1, 2))
        var = (x - mean).pow(2).mean((0, 1, 2))
        n = x.numel() / x.shape[-1]
        self.running_mean.data = (1 - self.m) * self.running_mean + self.m * mean.detach()
        self.running_var.data = (1 - self.m) * self.running_var + self.m * var.detach() * n / (n - 1)
        return ((x - mean) / torch.sqrt(var + self.eps) * self.weight + self.bias).movedim(-1, 1)


class ByFlattening(ByMoving):
    def forward(self, x):
        flat = x.transpose(0, 1).reshape(x.shape[1], -1)
        mean, var = self.running_mean, self.running_var
        if self.training:
            var, mean = torch.var_mean(flat, 1, correction=0)
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.m)
                self.running_var.lerp_(flat.var(1), self.m)
        scale = self.weight * (var + self.eps).rsqrt()
        return (x - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        for number in (1, 2):
            setattr(self, f"conv{number}", nn.Conv2d(channels, channels, 3, padding=1, bias=False))
            setattr(self, f"norm{number}", nn.BatchNorm2d(channels))

    def forward(self, x):
        return F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


class Stepwise(Residual):
    def forward(self, x):
        y = self.norm1(self.conv1(x)).relu()
        y = self.norm2(self.conv2(y))
        y = y + x
        return y.clamp(min=0)


class OfCourse(Residual):
    def __init__(self, channels):
        super().__init__(channels)
        self.norm1, self.norm2 = bncourse.BatchNorm2d(channels), bncourse.BatchNorm2d(channels)


def gradcheck(batch_norm):
    x = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    return torch.autograd.gradcheck(batch_norm, (x,), raise_exception=False)


def gradcheck_that_catches(batch_norm):
    try:
        return torch.autograd.gradcheck(batch_norm, (torch.randn(4, 3).double().requires_grad_(),))
    except GradcheckError:
        return False


def against_torch(batch_norm):
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    dy = torch.randn(2, 3, dtype=torch.float64)
    (got,) = torch.autograd.grad(batch_norm(x), x, dy)
    (right,) = torch.autograd.grad(F.batch_norm(x, None, None, training=True), x, dy)
    return torch.allclose(got, right, rtol=1e-5, atol=1e-9)


def backward_by_jacobians(dy, x, weight, eps):
    n, sigma = len(x), (x.var(0, correction=0) + eps).sqrt()
    h = (x - x.mean(0)) / sigma
    jacobians = (torch.eye(n) - 1 / n - torch.einsum("ic,jc->cij", h, h) / n) / sigma[:, None, None]
    dx = torch.einsum("cij,ic->jc", jacobians, dy * weight)
    return dx, (dy * h).sum(0), dy.sum(0)


def backward_by_formula(dy, x, weight, eps):
    m, sigma = len(x), (x.var(0, correction=0) + eps).sqrt()
    h = (x - x.mean(0)) / sigma
    dx = weight / (m * sigma) * (m * dy - dy.sum(0) - h * (dy * h).sum(0))
    return [dx, torch.einsum("nc,nc->c", dy, h), dy.sum(0)]


def backward_step_by_step(dy, x, weight, eps):
    mean, n = x.mean(0), x.shape[0]
    var = ((x - mean) ** 2).sum(0) / n
    inverse = 1 / torch.sqrt(var + eps)
    dh = dy * weight
    dvar = (dh * (x - mean)).sum(0) * -0.5 * inverse**3
    dmean = -(dh * inverse).sum(0)
    dx = dh * inverse + dvar * 2 * (x - mean) / n + dmean / n
    return dx, (dy * (x - mean) * inverse).sum(0), dy.sum(0)


def fold_by_torch(convolution, norm):
    return torch.nn.utils.fuse_conv_bn_eval(convolution, norm)


def fold_by_copy(convolution, norm):
    folded = copy.deepcopy(convolution)
    gamma = 1.0 if norm.weight is None else norm.weight
    beta = 0.0 if norm.bias is None else norm.bias
    scale = gamma / torch.sqrt(norm.running_var + norm.eps)
    b = 0.0 if convolution.bias is None else convolution.bias
    with torch.no_grad():
        folded.weight = nn.Parameter(folded.weight * scale.reshape(-1, 1, 1, 1))
        folded.bias = nn.Parameter((b - norm.running_mean) * scale + beta)
    return folded


def fold_by_probing(convolution, norm):
    c = convolution
    new = nn.Conv2d(c.in_channels, c.out_channels, c.kernel_size, c.stride, c.padding, c.dilation, c.groups)
    with torch.no_grad():
        zero, one = (norm(torch.full((1, c.out_channels, 1, 1), v)).flatten() for v in (0.0, 1.0))
        new.weight.copy_(c.weight * (one - zero)[:, None, None, None])
        new.bias.copy_(zero if c.bias is None else zero + (one - zero) * c.bias)
    return new


def recalibrate_by_moments(model, batches):
    kept = {m: (m.training, getattr(m, "momentum", None)) for m in model.modules()}
    sums = {m: [0, 0.0, 0.0] for m in kept if isinstance(m, nn.BatchNorm1d)}

    def note(norm, inputs, output):
        x, total = inputs[0].double(), sums[norm]
        total[0] += len(x)
        total[1] = total[1] + x.sum(0)
        total[2] = total[2] + x.square().sum(0)

    hooks = [norm.register_forward_hook(note) for norm in sums]
    model.eval()
    for norm in sums:
        norm.train()
    with torch.no_grad():
        for batch in batches:
            model(batch)
    for hook in hooks:
        hook.remove()
    for norm, (n, s, q) in sums.items():
        norm.running_mean.copy_(s / n)
        norm.running_var.copy_((q - s**2 / n) / (n - 1))
    for m, (training, _) in kept.items():
        m.training = training


def recalibrate_with_batch_statistics(model, batches):
    """momentum=1 leaves one batch's statistics in each layer: gather them."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    modes, momenta, seen = (
        [(m, m.training) for m in model.modules()],
        [n.momentum for n in norms],
        {n: [] for n in norms},
    )
    model.eval()
    for n in norms:
        n.train()
        n.momentum = 1.0
    with torch.no_grad():
        for batch in batches:
            model(batch)
            for n in norms:
                size = len(batch)
                biased = n.running_var * (size - 1) / size
                seen[n].append((size, n.running_mean.clone(), biased.clone()))
        for n, momentum in zip(norms, momenta, strict=True):
            n.momentum = momentum
            total = sum(size for size, *_ in seen[n])
            mean = sum(size * m for size, m, _ in seen[n]) / total
            n.running_var.copy_(sum(size * (v + (m - mean) ** 2) for size, m, v in seen[n]) / total)
            n.running_mean.copy_(mean)
    for m, mode in modes:
        m.training = mode


RIGHT = {
    **experiment_answers.RIGHT,
    "signal": [
        lambda gain, depth: gain**depth,
        lambda gain, depth: math.exp(depth * math.log(gain)),
        lambda gain, depth: torch.tensor([float(gain)] * depth, dtype=torch.float64).prod(),
    ],
    "standardize": [
        lambda x, dims, eps: (x - x.mean(dims, True)) / torch.sqrt(x.var(dims, correction=0, keepdim=True) + eps),
        lambda x, dims, eps: (x - x.mean(dims, True)) * (x.var(dims, unbiased=False, keepdim=True) + eps) ** -0.5,
        lambda x, dims, eps: (
            (x - x.mean(dims, True)) / ((x - x.mean(dims, True)) ** 2).mean(dims, True).add(eps).sqrt()
        ),
        lambda x, dims, eps: F.batch_norm(x, None, None, training=True, eps=eps),
    ],
    "batch-norm": [
        by_layer,
        by_flat,
        lambda x, w, b, eps: functional.batch_norm(x, None, None, w, b, training=True, eps=eps),
    ],
    "identity": [
        lambda x, eps: ((x.var(axes_of(x), correction=0) + eps).sqrt(), x.mean(axes_of(x))),
        lambda x, eps: ((x.var(axes_of(x), correction=0) + eps).sqrt().numpy(), x.mean(axes_of(x)).numpy()),
        lambda x, eps: [torch.hypot(x.std(axes_of(x), correction=0), torch.tensor(eps**0.5)), x.mean(axes_of(x))],
    ],
    "running-statistics": [update_by_torch, update_by_lerp, update_by_hand],
    "warm-up": [
        count_steps,
        lambda f, m: math.ceil(math.log(1 - f) / math.log(1 - m)),
        lambda f, m: int(np.ceil(np.log1p(-f) / np.log1p(-m))),
    ],
    "evaluate": [accuracy_by_course, accuracy_of_a_copy, accuracy_with_care],
    "batch-noise": [
        lambda std, n, h, w: std / math.sqrt(n * h * w),
        lambda std, n, h, w: (std**2 / (n * h * w)) ** 0.5,
        lambda std, n, h, w: torch.tensor(std) * torch.tensor(float(n * h * w)).rsqrt(),
    ],
    "conv-block": [block(), block_of_course, Block],
    "norm-axes": [
        AXES,
        {"batch": [0, 2, 3], "layer": (-1, -2, -3), "instance": (-2, -1), "group": (4, 3, 2)},
        {name: tuple(reversed(axes)) for name, axes in AXES.items()},
    ],
    "group-norm": [F.group_norm, group_norm_by_loops, group_norm_five_axes],
    "batch-of-two": [
        two_by_torch,
        two_by_numpy,
        lambda a, b, eps: tuple(v / math.sqrt(((a - b) / 2) ** 2 + eps) for v in ((a - b) / 2, (b - a) / 2)),
    ],
    "accumulation": [chapter_8, divide_gradients, shares],
    "dropout-shift": [
        lambda keep, mean, var: var / ((var + mean**2) / keep - mean**2),
        lambda keep, mean, var: keep * var / (var + (1 - keep) * mean**2),
        lambda keep, mean, var: 1 / (1 / keep + mean**2 / var * (1 / keep - 1)),
    ],
    "zoo-bias": [
        conv_norm_relu(lambda norm: not (isinstance(norm, type) and issubclass(norm, nn.BatchNorm2d))),
        conv_norm_relu(lambda norm: not isinstance(norm(1), nn.BatchNorm2d)),
        conv_norm_relu(lambda norm: nn.BatchNorm2d not in getattr(norm, "__mro__", ())),
    ],
    "zoo-residual": [Residual, Stepwise, OfCourse],
    "zoo-gradient-check": [gradcheck, gradcheck_that_catches, against_torch],
    "layer": [layer(), ByMoving, ByFlattening],
    "backward": [backward_by_jacobians, backward_by_formula, backward_step_by_step],
    "fold": [fold_by_torch, fold_by_copy, fold_by_probing, lambda c, n: surgery.fold(nn.Sequential(c, n).eval())[0]],
    "recalibrate": [surgery.recalibrate, recalibrate_by_moments, recalibrate_with_batch_statistics],
    **{name: fixed(name) for name in FIXES},
}
