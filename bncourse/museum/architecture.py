"""C. Architecture."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from bncourse.museum.patients import batches_of, excess_variance, mean_loss, train
from bncourse.museum.specimen import Patient, specimen


def _idle_parameters(patient: Patient) -> float:
    """How many parameters do nothing: their gradient is nothing but rounding, or there is none."""
    inputs, labels = patient.batches[0]
    model = copy.deepcopy(patient.model).train().double()
    functional.cross_entropy(model(inputs.double()), labels).backward()
    tensors = [p for p in model.parameters() if p.grad is None or p.grad.abs().max() < 1e-9]
    return sum(tensor.numel() for tensor in tensors)


@specimen(
    before="nn.Conv2d(C, D, 3), nn.BatchNorm2d(D)",
    after="nn.Conv2d(C, D, 3, bias=False), nn.BatchNorm2d(D)",
    damage=_idle_parameters,
    measure="parameters that change nothing",
    chapter=6,
    threads=[
        ("https://github.com/4uiiurz1/pytorch-nested-unet/issues/39", "2021-01-24"),
        ("https://github.com/milesial/Pytorch-UNet/pull/325", "2021-12-13"),
    ],
    rules=("BN-S20",),
)
def bias_before_the_norm(fixed: bool) -> Patient:
    """Some parameters never get a gradient worth the name.

    The norm subtracts the channel's mean, and with it whatever constant the layer before it has added.
    """
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, bias=not fixed),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, bias=not fixed),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    return Patient(train(model, 60), batches_of(), torch.optim.Adam(model.parameters(), lr=0.003))


@specimen(
    before="nn.Dropout(0.5), nn.Linear(C, D), nn.BatchNorm1d(D), nn.ReLU()",
    after="nn.Linear(C, D), nn.BatchNorm1d(D), nn.ReLU(), nn.Dropout(0.5)",
    damage=excess_variance,
    measure="running variance over the variance in evaluation",
    chapter=9,
    threads=[("https://github.com/luigibonati/mlcolvar/pull/205", "2025-08-25")],
    rules=("BN-F09",),
)
def dropout_before_the_norm(fixed: bool) -> Patient:
    """The evaluation is worse than the training curve promises, and dropout seems to be to blame.

    Dropout raises the variance of what follows, in training only. The running variance remembers the raised value, so
    everything is too small in evaluation.
    """
    drop = nn.Dropout(0.5)
    hidden = [nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU()]
    layers = [*hidden, drop] if fixed else [drop, *hidden]
    model = nn.Sequential(nn.Flatten(), nn.Linear(196, 64), nn.ReLU(), *layers, nn.Linear(64, 10))
    return Patient(train(model, 150).eval(), batches_of())


class Forgetful(nn.Module):
    """A perceptron that has a norm; whether it uses it is the question."""

    def __init__(self, uses_norm: bool):
        super().__init__()
        self.hidden, self.norm, self.scores = nn.Linear(196, 64), nn.BatchNorm1d(64), nn.Linear(64, 10)
        self.uses_norm = uses_norm

    def forward(self, images: Tensor) -> Tensor:
        x = self.hidden(images.flatten(1))
        if self.uses_norm:
            x = self.norm(x)
        return self.scores(x.relu())


@specimen(
    before="x = self.hidden(x).relu()  # self.norm is made, and never called",
    after="x = self.norm(self.hidden(x)).relu()",
    damage=lambda patient: _idle_norms(patient),
    measure="parameters without a gradient",
    chapter=10,
    threads=[("https://github.com/Lightning-AI/pytorch-lightning/issues/17245", "2023-03-31")],
    rules=("BN-S07", "BN-W12"),
)
def norm_that_is_never_called(fixed: bool) -> Patient:
    """A tool that goes through the batch norms stops with an error, or the norm makes no difference to anything.

    The layer is made in ``__init__`` but missing from ``forward``: no batch is ever counted.
    """
    model = Forgetful(fixed)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    train(model, 60, optimizer=optimizer)
    return Patient(model, batches_of(), optimizer, session=lambda patient: train(patient.model, 5, optimizer=optimizer))


def _idle_norms(patient: Patient) -> float:
    inputs, labels = patient.batches[0]
    patient.model.zero_grad(set_to_none=True)
    functional.cross_entropy(patient.model(inputs), labels).backward()
    return sum(p.numel() for p in patient.model.parameters() if p.grad is None)


class SharedNorm(nn.Module):
    """A perceptron that uses one norm after both hidden layers, or one norm for each."""

    def __init__(self, shared: bool):
        super().__init__()
        self.first, self.second, self.scores = nn.Linear(196, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.norm1 = nn.BatchNorm1d(64)
        self.norm2 = self.norm1 if shared else nn.BatchNorm1d(64)

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm1(self.first(3 * images.flatten(1))).relu()
        return self.scores(self.norm2(self.second(x)).relu())


@specimen(
    before="self.norm2 = self.norm1",
    after="self.norm2 = nn.BatchNorm1d(64)",
    damage=mean_loss,
    measure="cross-entropy of the test digits, nats",
    chapter=10,
    threads=[
        ("https://github.com/keras-team/keras/pull/2944", "2016-06-10"),
        ("https://github.com/keras-team/keras/issues/8794", "2017-12-15"),
    ],
    rules=("BN-F10", "BN-W03", "BN-W05"),
)
def one_norm_in_two_places(fixed: bool) -> Patient:
    """A network whose layers share a batch norm trains without trouble and fails in evaluation.

    In training each place is normalized by its own batch. The running statistics are an average over both places,
    updated twice per step.
    """
    model = SharedNorm(not fixed)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    train(model, 150, optimizer=optimizer)
    return Patient(model, batches_of(), optimizer, session=lambda patient: train(patient.model, 5, optimizer=optimizer))
