"""Public models at work: what the doctor says of a healthy and a sick one, which norms fold, how long it takes."""

import time
from collections.abc import Callable
from importlib import import_module
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse
from torch.nn.functional import cross_entropy

from bncourse.data import Examples, photo_digits
from bncourse.devices import seeded
from bncourse.doctor import diagnose
from bncourse.doctor.batches import scores_in
from bncourse.doctor.norms import batch_norms
from bncourse.surgery import fold, report

__all__ = ["SHOWN", "folded", "shown", "speed"]

SHOWN = "pytorchcv resnet20_cifar10"

SIDES = {  # pixels, where 64 are too few or others are built in
    **dict.fromkeys(("timm levit_128s", "torchvision maxvit_t"), 224),
    "timm botnet26t_256": 256,
    "torchvision inception_v3": 299,
}


def shown(make: Callable[[], nn.Module]) -> dict[str, str]:
    """The doctor's answers: a trained model; and after its head alone was trained on darker photographs, in train()."""
    digits = photo_digits(train=1920, test=128).standardized().train
    dark = Examples(0.4 * digits.images - 1, digits.labels)
    with seeded(0):
        model = make()
        train(model, digits, 3)
        healthy = str(diagnose(model.eval(), (digits.images[:128], digits.labels[:128])))
        model.features.requires_grad_(False)
        train(model, dark, 1)
        sick = str(diagnose(model, (digits.images[:128], digits.labels[:128])))
    return {"healthy": healthy, "sick": sick}


def train(model: nn.Module, examples: Examples, epochs: int) -> None:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    model.train()
    for images, labels in list(zip(*(part.split(64) for part in examples), strict=True)) * epochs:
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()


@torch.no_grad()
def folded(name: str, make: Callable[[], nn.Module]) -> dict[str, Any] | None:
    """How many batch norms ``surgery.fold`` and ``torch.fx`` fold, and how far the outputs are off; None without norms.

    The statistics are those of random images: with a new model's the folding would be that of a scale of 1.
    """
    with seeded(0):
        model = make()
        norms = batch_norms(model)
        if not norms:
            return None
        side = SIDES.get(name, 32 if "cifar" in name else 224 if "pytorchcv" in name else 64)
        images = torch.randn(4 if side < 224 else 2, 3, side, side)
        for _ in range(3):
            model.train()(images)
    expected = scores_in(model.eval()(images))
    row: dict[str, Any] = {"norms": len(norms)}
    for who, do in (("ours", lambda: fold(model, images)), ("torch", lambda: fuse(model))):
        try:
            other = do()
            row[who] = len(report(other).changed) if who == "ours" else len(norms) - len(batch_norms(other))
            off = (scores_in(other(images)).double() - expected.double()).norm() / expected.double().norm()
            row[f"{who}_off"] = float(off)
        except Exception as error:  # a forward pass that it cannot follow, or nothing to fold
            row[who], row[f"{who}_said"] = 0, f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"
    return row


def speed(rounds: int = 3) -> dict[str, float]:
    """Processor seconds for ResNet-50 on 8 images of 224 x 224: a forward pass, the static rules, an examination."""
    model = import_module("torchvision.models").resnet50(weights=None)
    images, labels = torch.randn(8, 3, 224, 224), torch.arange(8)
    with torch.no_grad():
        model(images)
        model.eval()
        works = {
            "forward": lambda: model(images),
            "static": lambda: diagnose(model),
            "examination": lambda: diagnose(model, (images, labels)),
        }
        times: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(rounds):
            for name, work in works.items():
                started = time.process_time()
                work()
                times[name].append(time.process_time() - started)
    return {name: median(values) for name, values in times.items()}
