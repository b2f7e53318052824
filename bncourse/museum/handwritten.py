"""I. Layers written by hand."""

import torch
from torch import Tensor, nn

from bncourse.museum.patients import (
    accuracy,
    accuracy_as_left,
    batches_of,
    cnn,
    images_and_labels,
    mlp,
    shuffled,
    train,
)
from bncourse.museum.specimen import Patient, specimen


class OwnBatchNorm(nn.Module):
    """Batch normalization of (N, C, ...) as people write it; the subclasses get one thing wrong."""

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-5):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.momentum, self.eps = momentum, eps

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            mean, variance = self.moments(x.transpose(0, 1).flatten(1))
            self.remember(mean.detach(), variance.detach(), x.numel() // len(mean))
        else:
            mean, variance = self.running_mean, self.running_var
        shape = (1, -1) + (1,) * (x.dim() - 2)
        scale = self.weight / (variance + self.eps).sqrt()
        return (x - mean.view(shape)) * scale.view(shape) + self.bias.view(shape)

    def moments(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the biased variance of each channel, of (C, m) values."""
        return values.mean(1), values.var(1, correction=0)

    def remember(self, mean: Tensor, variance: Tensor, m: int) -> None:
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * m / (m - 1), self.momentum)


class NeverUpdated(OwnBatchNorm):
    def remember(self, mean: Tensor, variance: Tensor, m: int) -> None:
        running_mean = self.running_mean.lerp(mean, self.momentum)  # noqa: F841
        running_var = self.running_var.lerp(variance, self.momentum)  # noqa: F841


class BiasedMemory(OwnBatchNorm):
    def remember(self, mean: Tensor, variance: Tensor, m: int) -> None:
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class AfraidOfHeights(OwnBatchNorm):
    def moments(self, values: Tensor) -> tuple[Tensor, Tensor]:
        mean = values.mean(1)
        return mean, values.square().mean(1) - mean.square()


class AlwaysTheBatch(OwnBatchNorm):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training=True)


@specimen(
    before="running_mean = (1 - momentum) * self.running_mean + momentum * mean",
    after="self.running_mean = (1 - momentum) * self.running_mean + momentum * mean",
    damage=accuracy,
    measure="accuracy on the test digits, %",
    chapter=12,
    threads=[
        ("https://github.com/openai/improved-gan/issues/17", "2017-03-30"),
        ("https://github.com/ml-explore/mlx/issues/1960", "2025-03-13"),
        ("https://github.com/paiml/aprender/pull/2166", "2026-06-21"),
    ],
    rules=("BN-S08", "BN-F14"),
)
def statistics_never_written_back(fixed: bool) -> Patient:
    """A hand-written layer trains as torch's does, but evaluates as if it had never been trained.

    The new averages are computed, but forgotten at the end of the function.
    """
    model = cnn(OwnBatchNorm if fixed else NeverUpdated)
    return Patient(train(model, 150).eval(), batches_of())


@specimen(
    before="running_var.lerp_(batch_var, momentum)",
    after="running_var.lerp_(batch_var * m / (m - 1), momentum)",
    damage=lambda patient: _memory_over_data(patient),
    measure="running variance over the variance of the data",
    chapter=12,
    threads=[
        ("https://github.com/keras-team/keras/pull/9028", "2018-01-09"),
        ("https://github.com/tinygrad/tinygrad/pull/807", "2023-05-26"),
        ("https://github.com/ml-explore/mlx/pull/3817", "2026-07-08"),
        ("https://github.com/tenstorrent/tt-metal/issues/55438", "2026-09-04"),
    ],
    rules=("BN-F14",),
)
def biased_running_variance(fixed: bool) -> Patient:
    """With small batches the activations are larger in evaluation than in training.

    The variance of m values, divided by m, is too small on average, by a factor of (m - 1) / m. It is right to
    normalize the batch with it, but wrong to remember it as the population's.
    """
    model = mlp(OwnBatchNorm if fixed else BiasedMemory)
    train(model, 150, batches=shuffled(3))
    model[2].momentum = model[5].momentum = 0.02
    train(model, 300, optimizer=torch.optim.SGD(model.parameters(), lr=0.0), batches=shuffled(3))
    return Patient(model.eval(), [images_and_labels()])


@torch.no_grad()
def _memory_over_data(patient: Patient) -> float:
    first = patient.model[1](images_and_labels().images.flatten(1))
    return (patient.model[2].running_var / first.var(0)).mean().item()


@specimen(
    before="variance = (x * x).mean() - x.mean() ** 2",
    after="variance = ((x - x.mean()) ** 2).mean()",
    damage=lambda patient: _share_not_finite(patient),
    measure="share of the training outputs that are not finite, %",
    chapter=12,
    threads=[("https://github.com/tenstorrent/tt-metal/issues/45968", "2026-06-03")],
    rules=("BN-F14",),
)
def variance_by_two_large_numbers(fixed: bool) -> Patient:
    """Inputs with a large mean turn into NaN in the norm.

    The mean of the squares and the square of the mean are almost equal. In single precision, their difference is
    rounding error, and it is sometimes negative.
    """
    model = mlp(OwnBatchNorm if fixed else AfraidOfHeights)
    images = 0.02 * images_and_labels().images + 1000
    batches = list(zip(images.split(64), images_and_labels().labels.split(64), strict=True))[:4]
    return Patient(model, batches, torch.optim.Adam(model.parameters(), lr=0.003))


@torch.no_grad()
def _share_not_finite(patient: Patient) -> float:
    outputs = torch.cat([patient.model[:3](inputs) for inputs, _ in patient.batches])
    return 100 * (~outputs.isfinite()).float().mean().item()


@specimen(
    before="F.batch_norm(x, mean, var, weight, bias, training=True)",
    after="F.batch_norm(x, mean, var, weight, bias, training=self.training)",
    damage=accuracy_as_left,
    measure="accuracy on the test digits, sorted by class, %",
    chapter=3,
    threads=[("https://github.com/hyseob/Batch-Instance-Normalization/issues/4", "2024-01-05")],
    rules=("BN-F14", "BN-F11", "BN-F04"),
)
def training_mode_written_into_the_layer(fixed: bool) -> Patient:
    """``model.eval()`` makes no difference.

    The functional form takes the mode as an argument, and the layer always says "training".
    """
    model = cnn(OwnBatchNorm if fixed else AlwaysTheBatch)
    return Patient(train(model, 150).eval(), batches_of("test"))
