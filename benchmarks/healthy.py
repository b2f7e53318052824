"""Healthy models: trained as one should, until the loss is the same with running and with batch statistics."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW

import bncourse
from bncourse import surgery
from bncourse.museum.patients import batches_of, cnn, images_and_labels, mlp, residual, shuffled, train
from bncourse.museum.specimen import Patient

__all__ = ["HEALTHY", "losses", "made_healthy"]

STEPS, LIMIT = 150, 3000
AGREE = 0.1  # the two losses, relative


class PreActivation(nn.Module):
    """A residual block with the norms before the convolutions."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.norm2(self.conv1(self.norm1(x).relu())).relu())


def pre_activation() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        PreActivation(8),
        PreActivation(8),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def zero_initialized() -> nn.Sequential:
    """Residual blocks that begin as the identity."""
    model = residual()
    for name, module in model.named_modules():
        if name.endswith("norm2"):
            nn.init.zeros_(module.weight)
    return model


def with_biases() -> nn.Sequential:
    """As VGG with batch norm: each convolution has a bias, which its norm subtracts."""
    model = cnn()
    model[0] = nn.Conv2d(1, 8, 3, stride=2, padding=1)
    model[3] = nn.Conv2d(8, 16, 3, stride=2, padding=1)
    return model


def with_dropout() -> nn.Sequential:
    """Dropout behind the last norm."""
    return nn.Sequential(*mlp()[:-1], nn.Dropout(0.3), nn.Linear(64, 10))


def separable() -> nn.Sequential:
    """Depthwise and pointwise convolutions, a norm after each."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 16, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


class Attention(nn.Module):
    """Rows as tokens, through an encoder layer with LayerNorm."""

    def __init__(self, norm_first: bool):
        super().__init__()
        self.embedding = nn.Linear(14, 32)
        self.encoder = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True, norm_first=norm_first)
        self.norm, self.scores = bncourse.LayerNorm(32), nn.Linear(14 * 32, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.scores(self.norm(self.encoder(self.embedding(images.squeeze(1)))).flatten(1))


class Rows(nn.Module):
    """Rows as a sequence (N, C, L), one-dimensional convolutions with BatchNorm1d."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(14, 32, 3, padding=1, bias=False), nn.BatchNorm1d(32), nn.ReLU(),
            nn.Conv1d(32, 32, 3, padding=1, bias=False), nn.BatchNorm1d(32), nn.ReLU(),
        )  # fmt: skip
        self.scores = nn.Linear(32 * 14, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.scores(self.layers(images.squeeze(1)).flatten(1))


class Squeeze(nn.Module):
    """A gate from the mean over the map, as in squeeze-and-excitation, with a norm on 1x1."""

    def __init__(self):
        super().__init__()
        self.before, self.after = cnn()[:3], cnn()[3:]
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8), nn.Sigmoid()
        )

    def forward(self, images: Tensor) -> Tensor:
        x = self.before(images)
        return self.after(x * self.gate(x))


class FineTuned(nn.Module):
    """A trained backbone that stays in evaluation mode whatever ``train`` says, and a new head."""

    def __init__(self, backbone: nn.Sequential):
        super().__init__()
        self.backbone, self.head = backbone.requires_grad_(False), nn.Linear(64, 10)

    def train(self, mode: bool = True) -> "FineTuned":
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


def pretrained() -> nn.Sequential:
    return train(cnn(), 400)[:-1]


def frozen_by_surgery() -> nn.Sequential:
    backbone = pretrained().requires_grad_(False)
    return nn.Sequential(*surgery.freeze(backbone), nn.Linear(64, 10))


def averaging_all_batches() -> nn.Module:
    """Momentum None from the 400th step on: before, the weights changed too much to average over."""
    model = train(cnn(), 400)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    return model


def without_decay(model: nn.Module) -> AdamW:
    """AdamW that decays weights and spares gammas, betas and biases."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=0.003)


def adam(model: nn.Module) -> Adam:
    return Adam([p for p in model.parameters() if p.requires_grad], lr=0.003)


def sgd(model: nn.Module, lr: float = 0.1, decay: float = 0.0) -> SGD:
    return SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=decay)


# name: how to make the model, its optimizer, its batch size
HEALTHY: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], Any], int]] = {
    "CNN, torch's BatchNorm2d, Adam": (cnn, adam, 64),
    "CNN, our BatchNorm2d, Adam": (partial(cnn, bncourse.BatchNorm2d), adam, 64),
    "MLP, torch's BatchNorm1d, Adam": (mlp, adam, 64),
    "MLP, our BatchNorm1d, Adam": (partial(mlp, bncourse.BatchNorm1d), adam, 64),
    "residual, torch's BatchNorm2d": (residual, adam, 64),
    "residual, our BatchNorm2d": (partial(residual, bncourse.BatchNorm2d), adam, 64),
    "residual, gammas that begin at 0": (zero_initialized, adam, 64),
    "pre-activation residual": (pre_activation, adam, 64),
    "depthwise separable": (separable, adam, 64),
    "squeeze-and-excitation with a norm": (Squeeze, adam, 64),
    "BatchNorm1d on sequences (N, C, L)": (Rows, adam, 64),
    "biases before the norms": (with_biases, adam, 64),
    "dropout after the last norm": (with_dropout, adam, 64),
    "momentum=None": (averaging_all_batches, partial(sgd, lr=0.001), 64),
    "TensorFlow's momentum and eps": (partial(cnn, partial(nn.BatchNorm2d, momentum=0.01, eps=1e-3)), adam, 64),
    "affine=False": (partial(cnn, partial(nn.BatchNorm2d, affine=False)), adam, 64),
    "batches of 16, SGD": (cnn, partial(sgd, lr=0.02), 16),
    "batches of 8": (cnn, adam, 8),
    "batches of 256, SGD": (cnn, sgd, 256),
    "SGD, weight decay 5e-4 on everything": (cnn, partial(sgd, decay=5e-4), 64),
    "AdamW, no decay on the norms": (cnn, without_decay, 64),
    "GhostBatchNorm": (partial(cnn, lambda channels: bncourse.GhostBatchNorm(channels, 16)), adam, 64),
    "BatchRenorm": (partial(cnn, bncourse.BatchRenorm), adam, 64),
    "fine-tuning, frozen by surgery.freeze": (frozen_by_surgery, adam, 64),
    "fine-tuning, backbone kept in eval()": (lambda: FineTuned(pretrained()), adam, 64),
    "CNN, torch's GroupNorm": (partial(cnn, partial(nn.GroupNorm, 2)), adam, 64),
    "CNN, our GroupNorm": (partial(cnn, partial(bncourse.GroupNorm, 2)), adam, 64),
    "CNN, InstanceNorm2d": (partial(cnn, partial(nn.InstanceNorm2d, affine=True)), adam, 64),
    "MLP, torch's LayerNorm": (partial(mlp, nn.LayerNorm), adam, 64),
    "MLP, our LayerNorm": (partial(mlp, bncourse.LayerNorm), adam, 64),
    "MLP, our RMSNorm": (partial(mlp, bncourse.RMSNorm), adam, 64),
    "transformer, norms after": (partial(Attention, False), adam, 64),
    "transformer, norms before": (partial(Attention, True), adam, 64),
}  # fmt: skip


@torch.no_grad()
def losses(model: nn.Module) -> tuple[float, float]:
    """The loss on the test digits in evaluation mode, and with batch statistics where training uses them."""
    images, labels = images_and_labels("test")
    runs = copy.deepcopy(model).train()
    for module in runs.modules():
        if "Dropout" in type(module).__name__ or isinstance(module, nn.MultiheadAttention | nn.TransformerEncoderLayer):
            module.eval()
    evaluated = functional.cross_entropy(copy.deepcopy(model).eval()(images), labels).item()
    return evaluated, functional.cross_entropy(runs(images), labels).item()


def made_healthy(name: str) -> tuple[Patient, int, tuple[float, float]]:
    """Train a model until its two losses agree; the patient, how many steps that took, and the losses.

    Raises:
        RuntimeError: they did not agree in ``LIMIT`` steps.
    """
    make, make_optimizer, size = HEALTHY[name]
    torch.manual_seed(0)
    model = make()
    optimizer = make_optimizer(model)
    batches = shuffled(size)
    train(model, STEPS, optimizer=optimizer, batches=batches)
    for steps in range(STEPS, LIMIT, 50):
        both = losses(model)
        if abs(both[0] - both[1]) <= AGREE * min(both):
            return Patient(model, batches_of(size=max(size, 32)), optimizer, session=_session(size)), steps, both
        train(model, 50, optimizer=optimizer, batches=batches)
    raise RuntimeError(f"{name}: the losses are {both} after {LIMIT} steps")


def _session(size: int) -> Callable[[Patient], None]:
    """Some steps of training and a validation, as one should."""

    def run(patient: Patient) -> None:
        patient.model.train()
        train(patient.model, 10, optimizer=patient.optimizer, batches=shuffled(size))
        patient.model.eval()
        with torch.no_grad():
            for inputs, _ in batches_of("test"):
                patient.model(inputs)

    return run
