"""For each exercise, usual wrong answers, and a part of the hint that each of them must get."""

import math

import experiment_answers
import torch
from fixed_creatures import KINDS, fixed, spoiled
from torch import nn
from torch.nn import functional as F

import bncourse


def standardized(x, dims, eps, correction=0):
    return (x - x.mean(dims, keepdim=True)) / (x.var(dims, correction=correction, keepdim=True) + eps).sqrt()


def by_moments(x, dims, eps):
    mean = x.mean(dims, keepdim=True)
    return (x - mean) / (x.square().mean(dims, keepdim=True) - mean.square() + eps).sqrt()


def by_constants(x, dims, eps):
    with torch.no_grad():
        mean, variance = x.mean(dims, keepdim=True), x.var(dims, correction=0, keepdim=True)
    return (x - mean) / (variance + eps).sqrt()


def batch_norm(axes, correction=0, by_channel=True):
    def answer(x, weight, bias, eps):
        dims = axes if x.dim() == 4 else (0,)
        shape = (1, -1, *[1] * (x.dim() - 2)) if by_channel or x.shape[-1] != len(weight) else (-1,)
        return weight.reshape(shape) * standardized(x, dims, eps, correction) + bias.reshape(shape)

    return answer


def update(old, new, correction=1):
    def answer(mean, variance, x, momentum):
        axes, x = (0, *range(2, x.dim())), x.detach()
        weights = {"old": 1 - momentum, "new": momentum, "one": 1.0, "zero": 0.0}
        a, b = weights[old], weights[new]
        return a * mean + b * x.mean(axes), a * variance + b * x.var(axes, correction=correction)

    return answer


def update_with_graph(mean, variance, x, momentum):
    axes = (0, *range(2, x.dim()))
    return (1 - momentum) * mean + momentum * x.mean(axes), (1 - momentum) * variance + momentum * x.var(axes)


def accuracy_without_eval(model, images, labels, batch_size):
    with torch.no_grad():
        predicted = torch.cat([model(batch).argmax(1) for batch in images.split(batch_size)])
    return (predicted == labels).float().mean().item()


def accuracy_left_in_eval(model, images, labels, batch_size):
    return accuracy_without_eval(model.eval(), images, labels, batch_size)


def accuracy_waking_the_frozen(model, images, labels, batch_size):
    training = model.training
    result = accuracy_left_in_eval(model, images, labels, batch_size)
    model.train(training)
    return result


def accuracy_by_batches(model, images, labels, batch_size):
    model.eval()
    with torch.no_grad():
        pairs = zip(images.split(batch_size), labels.split(batch_size), strict=True)
        shares = [(model(x).argmax(1) == y).float().mean() for x, y in pairs]
    model.train()
    return torch.stack(shares).mean().item()


def accuracy_with_gradients(model, images, labels, batch_size):
    modes = {module: module.training for module in model.modules()}
    model.eval()
    predicted = torch.cat([model(batch).argmax(1) for batch in images.split(batch_size)])
    for module, mode in modes.items():
        module.training = mode
    return (predicted == labels).float().mean().item()


def block(bias=False, padding=None, swapped=False):
    def answer(in_channels, out_channels, kernel_size):
        pad = kernel_size // 2 if padding is None else padding
        parts = [
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=pad, bias=bias),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        ]
        return nn.Sequential(*(parts[:1] + parts[:0:-1] if swapped else parts))

    return answer


AXES = {"batch": (0, 2, 3), "layer": (1, 2, 3), "instance": (2, 3), "group": (2, 3, 4)}


def group_norm(reshape, axes):
    def answer(x, groups, weight, bias, eps):
        n, c, h, w = x.shape
        view = x.reshape(*reshape(n, c, groups), h, w)
        return weight[:, None, None] * standardized(view, axes, eps).reshape(x.shape) + bias[:, None, None]

    return answer


def accumulate(last=True, full=True, every=False):
    """The tutorial's loop, or with its last window stepped."""

    def answer(model, batches, optimizer, steps):
        for i, (inputs, labels) in enumerate(batches):
            window = steps if full else min(steps, len(batches) - i // steps * steps)
            (F.cross_entropy(model(inputs), labels) / (1 if every else window)).backward()
            if every or (i + 1) % steps == 0 or (last and i + 1 == len(batches)):
                optimizer.step()
                optimizer.zero_grad()

    return answer


class Layer(nn.Module):
    """A right BatchNorm2d with a switch for each bug of the zoo."""

    by_gradients = plain = biased = unbiased_forward = reversed = clinging = moments = detached = False

    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = nn.Parameter(torch.ones(num_features)), nn.Parameter(torch.zeros(num_features))
        for name, start in (("running_mean", torch.zeros(num_features)), ("running_var", torch.ones(num_features))):
            if self.plain:
                setattr(self, name, start)
            else:
                self.register_buffer(name, start)

    def forward(self, x):
        axes = (0, 2, 3)
        if torch.is_grad_enabled() if self.by_gradients else self.training:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detached):
                mean, variance = x.mean(axes), x.var(axes, correction=int(self.unbiased_forward))
                if self.moments:
                    variance = x.square().mean(axes) - mean.square()
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.clinging):
                new_mean, new_variance = x.mean(axes), x.var(axes, correction=0 if self.biased else 1)
                share = 1 - self.momentum if self.reversed else self.momentum
                self.running_mean = (1 - share) * self.running_mean + share * new_mean
                self.running_var = (1 - share) * self.running_var + share * new_variance
        else:
            mean, variance = self.running_mean, self.running_var
        x_hat = (x - mean[:, None, None]) / (variance[:, None, None] + self.eps).sqrt()
        return self.weight[:, None, None] * x_hat + self.bias[:, None, None]


def layer(**bugs):
    return type("BatchNorm", (Layer,), bugs)


class Borrowed(Layer):
    """Everything right, and torch does the work."""

    def forward(self, x):
        statistics = self.running_mean, self.running_var
        return F.batch_norm(x, *statistics, self.weight, self.bias, self.training, self.momentum, self.eps)


BY_GRADIENTS = (layer(by_gradients=True), "Ask self.training")


def by_mode(decides):
    """A layer that asks this function of itself and its input, and not whether it is in training."""

    class Deciding(Layer):
        def forward(self, x):
            before, self.training = self.training, bool(decides(self, x))
            try:
                return super().forward(x)
            finally:
                self.training = before

    return Deciding


DECIDED = [
    (by_mode(lambda layer, x: layer.training or x.requires_grad), "Gradients decide"),
    (by_mode(lambda layer, x: layer.training and not x.requires_grad), "Gradients decide"),
    (by_mode(lambda layer, x: x.requires_grad), "Gradients decide"),
    (by_mode(lambda layer, x: layer.training and layer.weight.requires_grad), "Gradients decide"),
    (by_mode(lambda layer, x: layer.training and torch.is_grad_enabled()), "Gradients decide"),
    (by_mode(lambda layer, x: True), "In evaluation use the running statistics"),
    (by_mode(lambda layer, x: False), "In training use the batch's own"),
]
PLAIN = (layer(plain=True), "register_buffer")
BIASED = (layer(biased=True), "stores the biased variance")
UNBIASED_FORWARD = (layer(unbiased_forward=True), "BatchNorm divides by m")
REVERSED = (layer(reversed=True), "momentum convention is reversed")
CLINGING = (layer(clinging=True), "the graph, which grows")
MOMENTS = (layer(moments=True), "loses all its digits")
DETACHED = (layer(detached=True), "held constant")


class Residual(nn.Module):
    where = "after"

    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        branch = self.conv2(F.relu(self.norm1(self.conv1(x))))
        if self.where == "after":
            return F.relu(self.norm2(x + branch))
        return x + F.relu(self.norm2(branch))


class Shortless(Residual):
    def forward(self, x):
        return F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


class Unrectified(Residual):
    def forward(self, x):
        return x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))


class OpenResidual(Residual):
    where = "branch"


def conv_norm_relu(has_bias):
    return lambda norm, inputs, outputs: nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, bias=has_bias(norm)), norm(outputs), nn.ReLU()
    )


def gradient_at_two(batch_norm):
    x = torch.randn(2, 3, requires_grad=True)
    (got,) = torch.autograd.grad(batch_norm(x).sum(), x)
    return bool(got.abs().max() < 0.1)


def gradient_too_tolerant(batch_norm):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 3, generator=generator, requires_grad=True)
    dy = torch.randn(8, 3, generator=generator)
    (got,) = torch.autograd.grad(batch_norm(x), x, dy)
    (right,) = torch.autograd.grad(F.batch_norm(x, None, None, training=True), x, dy)
    return bool((got.norm() / right.norm() - 1).abs() < 0.5)


def summed_in_double(batch_norm):
    x = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    (got,) = torch.autograd.grad(batch_norm(x).sum(), x)
    (right,) = torch.autograd.grad(F.batch_norm(x, None, None, training=True).sum(), x)
    return torch.allclose(got, right, atol=1e-9)


def gradcheck_that_raises(batch_norm):
    return torch.autograd.gradcheck(batch_norm, (torch.randn(4, 2, dtype=torch.float64, requires_grad=True),))


def backward(dx, dweight=None, average=False):
    def answer(dy, x, weight, eps):
        inverse = (x.var(0, correction=0) + eps).rsqrt()
        x_hat, g = (x - x.mean(0)) * inverse, weight * dy
        reduce = torch.mean if average else torch.sum
        weight_gradient = (dy * x if dweight == "x" else dy * x_hat).sum(0)
        return inverse * dx(g, x_hat), weight_gradient, reduce(dy, 0)

    return answer


def right_dx(g, x_hat):
    return g - g.mean(0) - x_hat * (g * x_hat).mean(0)


def fold(eps=None, mean=True, bias=True, options=True, in_place=False):
    def answer(convolution, norm):
        extra = {name: getattr(convolution, name) for name in ("stride", "padding", "dilation", "groups")}
        extra = extra if options else {"groups": convolution.groups}
        folded = nn.Conv2d(convolution.in_channels, convolution.out_channels, convolution.kernel_size, **extra)
        with torch.no_grad():
            scale = norm.weight / (norm.running_var + (norm.eps if eps is None else eps)).sqrt()
            folded.weight.copy_(convolution.weight * scale[:, None, None, None])
            own = convolution.bias if convolution.bias is not None and bias else 0.0
            folded.bias.copy_(norm.bias + (own - (norm.running_mean if mean else 0.0)) * scale)
            if in_place:
                convolution.weight.copy_(folded.weight)
        return folded

    return answer


def recalibrate(reset=True, average=True, restore=True, all_training=False):
    def answer(model, batches):
        modes = {module: module.training for module in model.modules()}
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
        momenta = [norm.momentum for norm in norms]
        model.train(all_training)
        for norm in norms:
            if reset:
                norm.reset_running_stats()
            norm.momentum = None if average else norm.momentum
            norm.train()
        with torch.no_grad():
            for batch in batches:
                model(batch)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum if restore != "modes" else norm.momentum
        if restore and restore != "momenta":
            for module, mode in modes.items():
                module.training = mode

    return answer


def all_at_once(model, batches):
    recalibrate()(model, [torch.cat(batches)])


def one_large_batch(model, batches, optimizer, steps):
    for start in range(0, len(batches), steps):
        x, y = (torch.cat(part) for part in zip(*batches[start : start + steps], strict=True))
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()


def one_backward(model, batches, optimizer, steps):
    for start in range(0, len(batches), steps):
        window = batches[start : start + steps]
        losses = [F.cross_entropy(model(x), y, reduction="sum") for x, y in window]
        (sum(losses) / sum(len(y) for _, y in window)).backward()
        optimizer.step()
        optimizer.zero_grad()


def never_cleared(model, batches, optimizer, steps, first=True):
    for start in range(0, len(batches), steps):
        window = batches[start : start + steps]
        for x, y in window:
            (F.cross_entropy(model(x), y, reduction="sum") / sum(len(y) for _, y in window)).backward()
        optimizer.step()
        if start + steps < len(batches):
            optimizer.zero_grad()


def axes_of(x):
    return (0, *range(2, x.dim()))


def means(x):
    return x.mean(axes_of(x))


WRONG = {
    **experiment_answers.WRONG,
    "signal": [
        (lambda gain, depth: gain * depth, "gain ** depth"),
        (lambda gain, depth: gain ** (2 * depth), "This is the variance"),
        (lambda gain, depth: gain ** (depth / 2), "not its square root"),
        (lambda gain, depth: gain ** (depth - 1), "the first one multiplies"),
        (lambda gain, depth: depth * gain, "gain ** depth"),
    ],
    "standardize": [
        (lambda x, dims, eps: standardized(x, dims, eps, 1), "divides by m - 1"),
        (lambda x, dims, eps: standardized(x, dims, 0.0), "without eps"),
        (by_moments, "loses all its digits"),
        (by_constants, "held constant"),
        (lambda x, dims, eps: standardized(x, tuple(range(x.dim())), eps), "the whole tensor"),
        (
            lambda x, dims, eps: (
                (x - x.mean(dims, keepdim=True)) / (x.var(dims, correction=0, keepdim=True).sqrt() + eps)
            ),
            "inside the square root",
        ),
        (
            lambda x, dims, eps: (x - x.mean(dims, keepdim=True)) / (x.std(dims, keepdim=True) + eps),
            "Two slips at once",
        ),
        (lambda x, dims, eps: (x - x.mean(dims, keepdim=True)) / x.std(dims, keepdim=True), "without eps"),
        (lambda x, dims, eps: standardized(x, tuple(range(x.dim())), eps, 1), "Two slips at once"),
    ],
    "batch-norm": [
        (batch_norm((0,)), "every pixel its own"),
        (batch_norm((2, 3)), "that is InstanceNorm"),
        (batch_norm((0, 2, 3), correction=1), "divides by m - 1"),
        (batch_norm((0, 2, 3), by_channel=False), "line up with the last axis"),
        (lambda x, w, b, eps: batch_norm((0, 2, 3))(x, w, 0 * w, eps), ""),
        (batch_norm((0,), correction=1), "Two slips at once"),
    ],
    "identity": [
        (lambda x, eps: (x.var((0, *range(2, x.dim())), correction=0).sqrt(), x.mean((0, *range(2, x.dim())))), "eps"),
        (lambda x, eps: ((x.var((0, *range(2, x.dim()))) + eps).sqrt(), x.mean((0, *range(2, x.dim())))), "unbiased"),
        (lambda x, eps: (x.std(axes_of(x)), means(x)), "Two slips at once"),
        (lambda x, eps: (x.var(axes_of(x), correction=0) + eps, means(x)), "This is the variance"),
        (lambda x, eps: ((x.var(axes_of(x), correction=0) + eps).rsqrt(), means(x)), "This is the inverse"),
        (lambda x, eps: ((x.var(axes_of(x), correction=0) + eps).sqrt(), -means(x)), "with its sign"),
        (lambda x, eps: ((x.var(axes_of(x), correction=0) + eps).sqrt(), 0 * means(x)), "adds the mean back"),
    ],
    "running-statistics": [
        (update("new", "old"), "momentum convention is reversed"),
        (update("old", "new", correction=0), "stores the biased variance"),
        (update("zero", "one"), "the old running value has no part"),
        (update_with_graph, "under torch.no_grad()"),
        (update("new", "old", correction=0), "momentum convention is reversed"),
    ],
    "warm-up": [
        (lambda f, m: math.floor(math.log(1 - f) / math.log(1 - m)), "round up"),
        (lambda f, m: math.ceil(math.log(1 - f) / math.log(m)), "momentum convention is reversed"),
        (lambda f, m: math.ceil(f / m - 1e-9), "exponential"),
        (lambda f, m: math.ceil(math.log(f) / math.log(1 - m)), "falls below the fraction itself"),
        (lambda f, m: math.ceil(1 / m), ""),
    ],
    "evaluate": [
        (accuracy_without_eval, "Call model.eval()"),
        (accuracy_left_in_eval, "Put the mode back"),
        (accuracy_waking_the_frozen, "each module's own"),
        (accuracy_by_batches, "averages the accuracies"),
        (accuracy_with_gradients, "under torch.no_grad()"),
    ],
    "batch-noise": [
        (lambda std, n, h, w: std / (n * h * w), "1 / sqrt(m)"),
        (lambda std, n, h, w: std / math.sqrt(n), "the pixels count too"),
        (lambda std, n, h, w: std, "does not depend on the batch size"),
        (lambda std, n, h, w: std**2 / (n * h * w), "This is the variance of the mean"),
        (lambda std, n, h, w: std / math.sqrt(n * h), ""),
    ],
    "conv-block": [
        (block(bias=True), "Pass bias=False"),
        (block(padding=1), "kernel_size // 2"),
        (block(swapped=True), "before the nonlinearity"),
        (
            lambda i, o, k: nn.Sequential(nn.Conv2d(i, o, k, padding=k // 2, bias=False), nn.ReLU()),
            "Conv2d, BatchNorm2d",
        ),
        (lambda i, o, k: nn.Conv2d(i, o, k, padding=k // 2, bias=False), "Conv2d, BatchNorm2d"),
    ],
    "norm-axes": [
        ({**AXES, "layer": (1,)}, "over the channels alone"),
        ({**AXES, "instance": (1, 2, 3)}, "each sample AND each channel"),
        ({**AXES, "batch": (0,)}, "every pixel has its own"),
        ({**AXES, "group": (1, 2, 3, 4)}, "it is LayerNorm"),
        ({**AXES, "layer": (0, 1, 2, 3)}, "Not over the batch"),
        ({**AXES, "group": (3, 4)}, "That is InstanceNorm"),
    ],
    "group-norm": [
        (group_norm(lambda n, c, g: (n, c // g, g), (1, 3, 4)), "interleaved"),
        (group_norm(lambda n, c, g: (n, c, 1), (2, 3, 4)), "that is InstanceNorm"),
        (group_norm(lambda n, c, g: (n, g, c // g), (0, 2, 3, 4)), "over the batch axis too"),
        (group_norm(lambda n, c, g: (n, 1, c), (2, 3, 4)), "that is one group"),
        (lambda x, g, w, b, eps: F.group_norm(x, g, eps=eps), "without weight and bias"),
        (lambda x, g, w, b, eps: F.group_norm(x, x.shape[1], w, b, eps), "that is InstanceNorm"),
    ],
    "batch-of-two": [
        (lambda a, b, eps: ((a > b) - (a < b) + 0.0, (b > a) - (b < a) + 0.0), "Only the sign survives"),
        (lambda a, b, eps: tuple(s * (a - b) / 2 / math.sqrt((a - b) ** 2 / 2 + eps) for s in (1, -1)), "unbiased"),
        (
            lambda a, b, eps: (
                (b - a) / 2 / math.sqrt((a - b) ** 2 / 4 + eps),
                (a - b) / 2 / math.sqrt((a - b) ** 2 / 4 + eps),
            ),
            "the wrong way round",
        ),
        (lambda a, b, eps: ((a - b) / 2, (b - a) / 2), "now divide"),
        (lambda a, b, eps: tuple(s * (a - b) / 2 / math.sqrt((a - b) ** 2 + eps) for s in (1, -1)), "not of the gap"),
    ],
    "accumulation": [
        (accumulate(last=False), "never took its step"),
        (accumulate(), "divided by the full number"),
        (accumulate(full=False), "Weight each micro-batch"),
        (accumulate(every=True), "nothing is accumulated"),
        (one_large_batch, "one micro-batch at a time"),
        (one_backward, "Call backward() on each loss"),
        (never_cleared, "left in the second"),
    ],
    "dropout-shift": [
        (lambda keep, mean, variance: keep, "inputs with zero mean"),
        (lambda keep, mean, variance: ((variance + mean**2) / keep - mean**2) / variance, "upside down"),
        (lambda keep, mean, variance: keep**2, "grows by a factor of 1 / keep"),
        (lambda keep, mean, variance: variance / ((variance + mean**2) / (1 - keep) - mean**2), "KEEPING a value"),
        (lambda keep, mean, variance: variance / ((variance + mean**2) / keep), "Subtract the squared mean"),
    ],
    "layer": [
        *(BY_GRADIENTS, PLAIN, BIASED, UNBIASED_FORWARD, REVERSED, CLINGING, MOMENTS, DETACHED),
        (nn.BatchNorm2d, "Write it from tensors"),
        (bncourse.BatchNorm2d, "Write it from tensors"),
        (type("Alias", (nn.BatchNorm2d,), {}), "Write it from tensors"),
        (Borrowed, "Write it from tensors"),
        *DECIDED,
    ],
    "zoo-bias": [
        (conv_norm_relu(lambda norm: not isinstance(norm, nn.BatchNorm2d)), "Ask issubclass"),
        (conv_norm_relu(lambda norm: norm != nn.BatchNorm2d), "misses subclasses"),
        (conv_norm_relu(lambda norm: False), "Nothing replaces it"),
        (conv_norm_relu(lambda norm: True), "Ask issubclass"),
        (conv_norm_relu(lambda norm: norm is not nn.BatchNorm2d), "misses subclasses"),
    ],
    "zoo-residual": [
        (Residual, "before the addition"),
        (OpenResidual, "the sum comes first"),
        (Shortless, "shortcut is missing"),
        (Unrectified, "goes around the last ReLU"),
        (nn.Identity, ""),
    ],
    "zoo-gradient-check": [
        (gradient_at_two, "Use at least 4 samples"),
        (gradient_at_two, "Weight the outputs differently"),
        (summed_in_double, "Weight the outputs differently"),
        (gradient_too_tolerant, "small tolerance"),
        (gradcheck_that_raises, "raise_exception=False"),
        (lambda batch_norm: True, "Compare element by element"),
        (lambda batch_norm: False, "allow for rounding"),
    ],
    "backward": [
        (backward(lambda g, x_hat: g), "held constant"),
        (backward(lambda g, x_hat: g - g.mean(0)), "path through the variance"),
        (backward(lambda g, x_hat: g - x_hat * (g * x_hat).mean(0)), "path through the mean"),
        (backward(right_dx, dweight="x"), "needs x_hat"),
        (backward(right_dx, average=True), "its gradient is a sum"),
        (backward(lambda g, x_hat: g + g.mean(0) + x_hat * (g * x_hat).mean(0)), "they have to be subtracted"),
    ],
    "fold": [
        (fold(eps=0.0), "eps is missing"),
        (fold(mean=False), "running mean is missing"),
        (fold(bias=False), "own bias is missing"),
        (fold(options=False), "stride, padding"),
        (fold(in_place=True), "Fold into a new"),
    ],
    "recalibrate": [
        (recalibrate(reset=False, average=False), "Begin without them"),
        (recalibrate(average=False), "All samples should count the same"),
        (recalibrate(), "variance BETWEEN the batches"),
        (recalibrate(), "Weight them by their sizes"),
        (recalibrate(all_training=True), "turns dropout on"),
        (lambda model, batches: torch.optim.swa_utils.update_bn(batches, model), "turns dropout on"),
        (all_at_once, "Run the batches one after another"),
        (lambda model, batches: model.eval(), "have not changed"),
        (recalibrate(restore=False), "Remember each module's own"),
        (recalibrate(restore="modes"), "own momentum back"),
    ],
}

SQUARES = "square().mean(2, keepdim=True).sub(mean.square())"


class Halfhearted(nn.Module):
    """Right, from tensors, and written anew."""

    def __init__(self, width, eps=1e-5):
        super().__init__()
        self.gain, self.shift = (nn.Parameter(start(width)) for start in (torch.ones, torch.zeros))
        self.epsilon = torch.tensor(eps)

    def forward(self, tokens):
        centred = tokens.sub(tokens.sum(-1, keepdim=True).div(tokens.shape[-1]))
        power = torch.einsum("ntd,ntd->nt", centred, centred).div(tokens.shape[-1])[..., None]
        return torch.addcmul(self.shift, self.gain, centred.div(power.add(self.epsilon).pow(0.5)))


SPOILED = {
    "zoo-mode": [
        ("if self.training:", "if self.training or x.requires_grad:", "Gradients decide"),
        ("if self.training:", "if x.requires_grad:", "Gradients decide"),
        ("if self.training:", "if self.training and self.weight.requires_grad:", "Gradients decide"),
        ("if self.training:", "if True:", "In evaluation use the running statistics"),
        ("lerp_(mean, self.momentum)", "lerp_(mean, 1 - self.momentum)", "convention is reversed"),
        ("x.var((0, 1, 2), correction=0)", "x.var((0, 1, 2))", "m - 1"),
        ("var * count / (count - 1)", "var", "stores the biased variance"),
    ],
    "zoo-buffers": [
        ('self.register_buffer("count"', 'self.count = nn.Buffer("count"', ""),
        ('"var", torch.ones(features))', '"variance", torch.ones(features))', ""),
        ("new * x.var(0, correction=0)", "new * x.var(0)", ""),
    ],
    "zoo-variance": [
        ("var = squares / n\n", "var = squares / x.shape[0]\n", ""),
        ("running_mean += self.momentum *", "running_mean += (1 - self.momentum) *", "convention is reversed"),
        ("squares / (n - 1) -", "squares / n -", "stores the biased variance"),
    ],
    "zoo-momentum": [
        ("var * count / (count - 1)", "var", ""),
        ("(x - mean).square().mean((0, 2, 3)", "(x - mean).square().mean((2, 3)", ""),
        ("return (x - mean) / (var + self.eps).sqrt()", "return (x - mean) / var.sqrt() + self.eps", ""),
    ],
    "zoo-graph": [
        ("x.mean(0), x.var(0, correction=0)", "x.detach().mean(0), x.detach().var(0, correction=0)", "held constant"),
        ("self.momentum * unbiased", "self.momentum * var", "stores the biased variance"),
        ("self.running_mean[step] +=", "self.running_mean[:] +=", ""),
    ],
    "zoo-cancellation": [
        ("var(2, correction=0, keepdim=True)", f"{SQUARES}.abs()", "loses all its digits"),
        ("var(2, correction=0, keepdim=True)", f"{SQUARES}.clamp(0)", "loses all its digits"),
        ("grouped = x.reshape(len(x), self.groups, -1)", "grouped = x.reshape(len(x), -1, self.groups)", ""),
    ],
    "zoo-detached": [
        ("x.var(-1, correction=0", "x.detach().var(-1, correction=0", "the variance is still a constant"),
        ("mean = x.mean(-1, keepdim=True)", "mean = x.detach().mean(-1, keepdim=True)", "the mean is still a constant"),
        ("correction=0, keepdim=True", "keepdim=True", "divides by m - 1"),
    ],
}  # fmt: skip
THEIRS = {
    "zoo-mode": nn.BatchNorm2d,
    "zoo-buffers": nn.BatchNorm1d,
    "zoo-variance": nn.BatchNorm1d,
    "zoo-momentum": nn.BatchNorm2d,
    "zoo-graph": nn.BatchNorm1d,
    "zoo-cancellation": nn.GroupNorm,
    "zoo-detached": nn.LayerNorm,
}
for _number, _name in enumerate(SPOILED):
    WRONG[_name] = [
        (KINDS[_name], ""),
        (THEIRS[_name], "in place"),
        (fixed([*SPOILED][_number - 1])[0], "in place"),
        *((spoiled(_name, old, new), hint) for old, new, hint in SPOILED[_name]),
    ]
WRONG["zoo-detached"].append((Halfhearted, "in place"))
