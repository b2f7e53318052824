"""The bug zoo's creatures as students get them: different layers, each with a bug of a kind that ships.

The notebook is made from these classes, and its solutions by replacing what ``instructor/ex-04-bug-zoo.py`` names. The
check compares an answer with its creature, because fixing is changing as little as possible.
"""

import torch
from torch import nn


class Sleepless(nn.Module):
    """BatchNorm for images with the channels last, (N, H, W, C)."""

    def __init__(self, channels, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x):
        if torch.is_grad_enabled():
            mean = x.mean((0, 1, 2))
            var = x.var((0, 1, 2), correction=0)
            count = x[..., 0].numel()
            with torch.no_grad():
                unbiased = var * count / (count - 1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(unbiased, self.momentum)
        else:
            mean, var = self.running_mean, self.running_var
        x_hat = (x - mean) / (var + self.eps).sqrt()
        return self.weight * x_hat + self.bias


class Amnesiac(nn.Module):
    """Standardizes features, (N, C), by all it has seen in training."""

    def __init__(self, features, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.count = torch.zeros(())
        self.mean = torch.zeros(features)
        self.var = torch.ones(features)

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                seen, new = self.count, len(x)
                gap = x.mean(0) - self.mean
                between = gap**2 * seen * new / (seen + new)
                within = seen * self.var + new * x.var(0, correction=0)
                self.var = (within + between) / (seen + new)
                self.mean = self.mean + gap * new / (seen + new)
                self.count = seen + new
        return (x - self.mean) / (self.var + self.eps).sqrt()


class Miscounting(nn.Module):
    """BatchNorm for sequences, (N, C, L)."""

    def __init__(self, channels, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(channels, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1))
        self.register_buffer("running_mean", torch.zeros(channels, 1))
        self.register_buffer("running_var", torch.ones(channels, 1))

    def forward(self, x):
        mean, var = self.running_mean, self.running_var
        if self.training:
            n = x.shape[0] * x.shape[2]
            mean = x.mean((0, 2)).unsqueeze(1)
            squares = (x - mean).square().sum((0, 2)).unsqueeze(1)
            var = squares / (n - 1)
            with torch.no_grad():
                step = mean - self.running_mean
                self.running_mean += self.momentum * step
                step = squares / n - self.running_var
                self.running_var += self.momentum * step
        scale = self.weight * (var + self.eps).rsqrt()
        return scale * (x - mean) + self.bias


class Forgetful(nn.Module):
    """BatchNorm for images, (N, C, H, W), without weight and bias."""

    def __init__(self, channels, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        shape = (1, channels, 1, 1)
        self.register_buffer("running_mean", torch.zeros(shape))
        self.register_buffer("running_var", torch.ones(shape))

    def forward(self, x):
        if not self.training:
            spread = (self.running_var + self.eps).sqrt()
            return (x - self.running_mean) / spread
        mean = x.mean((0, 2, 3), keepdim=True)
        var = (x - mean).square().mean((0, 2, 3), keepdim=True)
        with torch.no_grad():
            count = x.numel() // x.shape[1]
            old, new = self.momentum, 1 - self.momentum
            unbiased = var * count / (count - 1)
            self.running_mean.mul_(old).add_(new * mean)
            self.running_var.mul_(old).add_(new * unbiased)
        return (x - mean) / (var + self.eps).sqrt()


class Clinging(nn.Module):
    """BatchNorm in a recurrent network, for features, (N, C).

    Each time step has its own running statistics.
    """

    def __init__(self, features, steps, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.full((features,), 0.1))
        shape = (steps, features)
        self.register_buffer("running_mean", torch.zeros(shape))
        self.register_buffer("running_var", torch.ones(shape))

    def forward(self, x, step):
        mean, var = self.running_mean[step], self.running_var[step]
        if self.training:
            mean, var = x.mean(0), x.var(0, correction=0)
            unbiased = var * len(x) / (len(x) - 1)
            self.running_mean[step] *= 1 - self.momentum
            self.running_mean[step] += self.momentum * mean
            self.running_var[step] *= 1 - self.momentum
            self.running_var[step] += self.momentum * unbiased
        return self.weight * (x - mean) / (var + self.eps).sqrt()


class Dizzy(nn.Module):
    """GroupNorm for images, (N, C, H, W)."""

    def __init__(self, groups, channels, eps=1e-5):
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x):
        grouped = x.reshape(len(x), self.groups, -1)
        mean = grouped.mean(2, keepdim=True)
        squares = grouped.square().mean(2, keepdim=True)
        var = squares - mean.square()
        x_hat = (grouped - mean) / (var + self.eps).sqrt()
        return self.weight * x_hat.reshape(x.shape) + self.bias


class Halfhearted(nn.Module):
    """LayerNorm for tokens, (N, T, D), over the last axis."""

    def __init__(self, width, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.gain = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))

    def forward(self, x):
        with torch.no_grad():
            mean = x.mean(-1, keepdim=True)
            var = x.var(-1, correction=0, keepdim=True)
        x_hat = (x - mean) / (var + self.eps).sqrt()
        return self.gain * x_hat + self.shift
