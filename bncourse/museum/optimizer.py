"""D. Optimizer."""

import copy

import torch
from torch import nn
from torch.nn import functional
from torch.optim import Optimizer

from bncourse.museum.patients import batches_of, cnn, mlp, train
from bncourse.museum.specimen import Patient, specimen


def _gammas(model: nn.Module) -> list[nn.Parameter]:
    return [module.weight for module in model.modules() if isinstance(module, nn.BatchNorm2d | nn.GroupNorm)]


def _median_gamma(patient: Patient) -> float:
    return torch.cat(_gammas(patient.model)).median().item()


@specimen(
    before="AdamW(model.parameters(), weight_decay=1)",
    after='AdamW([{"params": weights}, {"params": gammas, "weight_decay": 0}], weight_decay=1)',
    damage=_median_gamma,
    measure="median gamma after training",
    chapter=10,
    threads=[
        ("https://github.com/ultralytics/yolov5/issues/7375", "2022-04-11"),
        ("https://github.com/huggingface/transformers/issues/42754", "2025-12-10"),
        ("https://github.com/ServiceNow/Fast-LLM/issues/542", "2026-06-17"),
    ],
    rules=("BN-S23",),
)
def weight_decay_on_the_norms(fixed: bool) -> Patient:
    """After a refactoring, or with another kind of norm, the same recipe trains worse.

    The parameter groups exempt norms by class or by name, but miss these: gamma and beta are pulled towards 0.
    """
    model = cnn()
    decayed = [p for p in model.parameters() if p.ndim > 1 or not fixed]
    spared = [p for p in model.parameters() if p.ndim == 1 and fixed]
    groups = [{"params": decayed, "weight_decay": 1.0}, {"params": spared, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=0.01)
    return Patient(train(model, 150, optimizer=optimizer), batches_of(), optimizer)


def _largest_change(patient: Patient) -> float:
    """How far any gamma has come from the 1 that it starts with."""
    return max((gamma - 1).abs().max().item() for gamma in _gammas(patient.model))


@specimen(
    before="optimizer = Adam(model.parameters()); model.norm = nn.GroupNorm(2, 8)",
    after="model.norm = nn.GroupNorm(2, 8); optimizer = Adam(model.parameters())",
    damage=_largest_change,
    measure="largest change of a gamma in training",
    chapter=13,
    threads=[("https://github.com/NVIDIA/apex/issues/88", "2018-11-29")],
    rules=("BN-S24", "BN-S26"),
)
def norms_missing_in_the_optimizer(fixed: bool) -> Patient:
    """The new norms' parameters have gradients but never change.

    The norms were replaced after the optimizer had been made: it still holds the parameters of the old ones.
    """
    model = cnn()
    early = torch.optim.Adam(model.parameters(), lr=0.003)
    model[1], model[4] = nn.GroupNorm(2, 8), nn.GroupNorm(4, 16)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003) if fixed else early

    def epoch(patient: Patient) -> None:
        train(patient.model, 5, optimizer=patient.optimizer)

    return Patient(train(model, 60, optimizer=optimizer), batches_of(), optimizer, session=epoch)


def accumulate(model: nn.Module, optimizer: Optimizer, batches: list) -> None:
    """One optimizer step with the mean gradient of several batches."""
    optimizer.zero_grad()
    for inputs, labels in batches:
        (functional.cross_entropy(model(inputs), labels) / len(batches)).backward()
    optimizer.step()


def _difference_of_gradients(patient: Patient) -> float:
    """Between the accumulated gradient of the first layer and that of the same samples in one batch; relative."""
    gradients = []
    images, labels = (torch.cat(parts) for parts in zip(*patient.batches, strict=True))
    for batches in (patient.batches, [(images, labels)]):
        model = copy.deepcopy(patient.model).train()
        accumulate(model, torch.optim.SGD(model.parameters(), lr=0.0), batches)
        gradients.append(model[1].weight.grad)
    return ((gradients[0] - gradients[1]).norm() / gradients[1].norm()).item()


@specimen(
    before="accumulate over 16 batches of 4  # BatchNorm1d",
    after="accumulate over 16 batches of 4  # LayerNorm",
    damage=_difference_of_gradients,
    measure="difference from the gradient of one batch of 64, share of its size",
    chapter=8,
    threads=[
        ("https://github.com/run-ai/runai/issues/14", "2020-03-31"),
        ("https://github.com/ultralytics/yolov5/issues/1630", "2020-12-07"),
        ("https://github.com/andreped/GradientAccumulator/issues/6", "2022-06-03"),
        ("https://github.com/giotto-ai/giotto-deep/issues/75", "2022-05-05"),
    ],
    rules=("BN-W04",),
)
def accumulation_for_a_larger_batch(fixed: bool) -> Patient:
    """Gradients are accumulated over 16 batches of 4, but training does not go as it does with a batch of 64.

    Accumulation averages gradients. Each batch of 4 is still normalized by itself, and moves the running statistics.
    """
    model = mlp(nn.LayerNorm if fixed else nn.BatchNorm1d)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    batches = batches_of(size=4, count=16)
    train(model, 20, optimizer=optimizer)
    return Patient(
        model, batches, optimizer, session=lambda patient: accumulate(patient.model, patient.optimizer, batches)
    )
