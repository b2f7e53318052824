"""Each creature of the bug zoo, fixed in several ways: its source with lines replaced."""

import inspect

import torch
from torch import nn

from bncourse.exercises import creatures

OLD = """            unbiased = var * len(x) / (len(x) - 1)
            self.running_mean[step] *= 1 - self.momentum
            self.running_mean[step] += self.momentum * mean
            self.running_var[step] *= 1 - self.momentum
            self.running_var[step] += self.momentum * unbiased
"""
NO_GRAD = "            with torch.no_grad():\n" + OLD.replace("            ", "                ")
FORGETS = """            self.running_mean.mul_(old).add_(new * mean)
            self.running_var.mul_(old).add_(new * unbiased)
"""
MOMENTS = """        squares = grouped.square().mean(2, keepdim=True)
        var = squares - mean.square()
"""
DETACHED = """        with torch.no_grad():
            mean = x.mean(-1, keepdim=True)
            var = x.var(-1, correction=0, keepdim=True)
"""
BUFFERS = {
    "self.count = torch.zeros(())": 'self.register_buffer("count", torch.zeros(()))',
    "self.mean = torch.zeros(features)": 'self.register_buffer("mean", torch.zeros(features))',
    "self.var = torch.ones(features)": 'self.register_buffer("var", torch.ones(features))',
}
COUNTED = {
    "var = squares / (n - 1)": "var = squares / n",
    "step = squares / n -": "step = squares / (n - 1) -",
}
FIXES = {
    "zoo-mode": [
        {"if torch.is_grad_enabled():": "if self.training:"},
        {"if torch.is_grad_enabled():": "if self.training is True:  # was: gradients"},
        {"if torch.is_grad_enabled():": "if self.training:", "(x - mean) / (var + self.eps).sqrt()": (
            "(x - mean) * (var + self.eps).rsqrt()"
        )},
    ],
    "zoo-buffers": [
        BUFFERS,
        {**BUFFERS, "self.count = torch.zeros(())": 'self.register_buffer("count", torch.tensor(0.0))'},
        {
            "        self.count = torch.zeros(())\n        self.mean = torch.zeros(features)\n"
            "        self.var = torch.ones(features)\n": (
                '        zero, one = torch.zeros(features), torch.ones(features)\n'
                '        start = {"count": torch.zeros(()), "mean": zero, "var": one}\n'
                "        for name, value in start.items():\n            self.register_buffer(name, value)\n"
            )
        },
    ],
    "zoo-variance": [
        COUNTED,
        {**COUNTED, "var = squares / (n - 1)": "var = x.var((0, 2), correction=0).unsqueeze(1)"},
        {**COUNTED, "step = squares / n -": "step = x.var((0, 2)).unsqueeze(1) -"},
    ],
    "zoo-momentum": [
        {"old, new = self.momentum, 1 - self.momentum": "old, new = 1 - self.momentum, self.momentum"},
        {FORGETS: FORGETS.replace("old", "new").replace("new *", "old *")},
        {FORGETS: "            self.running_mean.lerp_(mean, self.momentum)\n"
                  "            self.running_var.lerp_(unbiased, self.momentum)\n"},
        {"self.eps, self.momentum = eps, momentum": "self.eps, self.momentum = eps, 1 - momentum"},
    ],
    "zoo-graph": [
        {OLD: NO_GRAD},
        {"self.momentum * mean": "self.momentum * mean.detach()",
         "self.momentum * unbiased": "self.momentum * unbiased.detach()"},
        {"unbiased = var * len(x) / (len(x) - 1)": "unbiased = x.detach().var(0)",
         "self.momentum * mean": "self.momentum * x.detach().mean(0)"},
    ],
    "zoo-cancellation": [
        {MOMENTS: "        var = grouped.var(2, correction=0, keepdim=True)\n"},
        {"squares = grouped.square()": "squares = (grouped - mean).square()", "squares - mean.square()": "squares"},
        {MOMENTS: "        var = ((grouped - mean) ** 2).sum(2, keepdim=True) / grouped.shape[2]\n"},
    ],
    "zoo-detached": [
        {DETACHED: DETACHED.replace("        with torch.no_grad():\n", "").replace("            ", "        ")},
        {DETACHED: "        mean, var = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)\n"},
        {"with torch.no_grad():": "with torch.enable_grad():"},
    ],
}  # fmt: skip


def changed(kind: type, replacements: dict[str, str]) -> type:
    """The class with parts of its source replaced; each part must be there."""
    source = inspect.getsource(kind)
    for old, new in replacements.items():
        assert old in source, old
        source = source.replace(old, new)
    names = {"torch": torch, "nn": nn}
    exec(source, names)
    return names[kind.__name__]


KINDS = {
    "zoo-mode": creatures.Sleepless,
    "zoo-buffers": creatures.Amnesiac,
    "zoo-variance": creatures.Miscounting,
    "zoo-momentum": creatures.Forgetful,
    "zoo-graph": creatures.Clinging,
    "zoo-cancellation": creatures.Dizzy,
    "zoo-detached": creatures.Halfhearted,
}


def fixed(name: str) -> list[type]:
    """The exercise's creature, fixed in each way."""
    return [changed(KINDS[name], fix) for fix in FIXES[name]]


def spoiled(name: str, old: str, new: str) -> type:
    """The creature, fixed, and with another bug in its place."""
    return changed(KINDS[name], FIXES[name][0] | {old: new})
