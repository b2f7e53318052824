"""G. Precision."""

import copy

import torch
from torch import Tensor, nn

from bncourse.data import digits
from bncourse.museum.patients import accuracy, batches_of, cnn, images_and_labels, share_right, shuffled, train, trained
from bncourse.museum.specimen import Patient, specimen


@specimen(
    before="if loss.isfinite(): optimizer.step()  # the forward pass has moved the statistics",
    after="if images.isfinite().all(): step(model, images)",
    damage=accuracy,
    measure="accuracy on the test digits, %",
    chapter=10,
    threads=[
        ("https://github.com/pytorch/pytorch/issues/58392", "2021-05-17"),
        ("https://github.com/pytorch/pytorch/issues/88474", "2022-11-04"),
        ("https://github.com/pytorch/pytorch/issues/115500", "2023-12-10"),
    ],
    rules=("BN-S29", "BN-W07"),
)
def one_batch_that_overflows(fixed: bool) -> Patient:
    """Training in mixed precision goes on without trouble, but from then on the evaluation is NaN.

    The gradient scaler skips the step of a batch that has overflowed. But the batch norms have already seen the batch,
    and once a running average is infinite, it stays infinite.
    """
    model = trained()
    if not fixed:
        images = batches_of()[0][0] * 65504
        model(images.masked_fill(images > 65504, torch.inf))
    train(model, 5, optimizer=torch.optim.SGD(model.parameters(), lr=0.0))
    return Patient(model.eval(), batches_of())


class Half(nn.Module):
    """A network in half precision that takes and gives single precision."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        dtype = next(self.network.parameters()).dtype
        return self.network(images.to(dtype)).float()


@specimen(
    before="model.half()",
    after="model.half(), with the batch norms' buffers kept in float32",
    damage=lambda patient: share_right(patient.model, patient.batches),
    measure="accuracy on the test digits, %",
    chapter=13,
    threads=[("https://github.com/apple/coreai-torch/pull/54", "2026-08-04")],
    rules=("BN-S29", "BN-S31"),
)
def variance_too_large_for_half(fixed: bool) -> Patient:
    """In half precision the network gives the same answer for every input, without any NaN.

    A running variance above 65,504 is infinite in half precision, and the output of its channel is 0. Raw pixels are
    enough for that.
    """
    network = cnn()
    train(network, 150, batches=shuffled(64, 1500 * images_and_labels().images))
    statistics = {place: network[place].state_dict() for place in (1, 4)}
    statistics = copy.deepcopy(statistics)
    network.half()
    if fixed:
        for norm, source in ((network[1], statistics[1]), (network[4], statistics[4])):
            norm.float().load_state_dict(source)
    images, labels = images_and_labels("test")
    batches = list(zip((1500 * images).split(64), labels.split(64), strict=True))
    return Patient(Half(network).eval(), batches)


class PlainLayerNorm(nn.Module):
    """Layer normalization written out, in the precision of its input."""

    def __init__(self, features: int, eps: float):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(features)), nn.Parameter(torch.zeros(features))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        variance = (x - mean).square().mean(-1, keepdim=True)
        return (x - mean) / (variance + self.eps).sqrt() * self.weight + self.bias


@specimen(
    before="eps=1e-12",
    after="eps=1e-5",
    damage=lambda patient: _share_not_finite(patient),
    measure="share of the outputs that are not finite, %",
    chapter=7,
    threads=[
        ("https://github.com/tensorflow/tensorflow/pull/24979", "2019-01-17"),
        ("https://github.com/pytorch/pytorch/issues/41527", "2020-07-16"),
        ("https://github.com/deepspeedai/DeepSpeed/issues/581", "2020-12-05"),
        ("https://github.com/wenet-e2e/wenet/pull/907", "2022-01-09"),
    ],
)
def eps_too_small_for_half(fixed: bool) -> Patient:
    """The network is fine in single precision but gives NaN in half precision, from the first padded token on.

    Half precision has no number between 0 and 6e-8: an eps of 1e-12 is 0 there, and a constant token is 0 / 0.
    """
    norm = PlainLayerNorm(14, 1e-5 if fixed else 1e-12)
    network = nn.Sequential(nn.Flatten(1, 2), norm, nn.Flatten(), nn.Linear(196, 10)).half().eval()
    images = digits().test.images[:, :, ::2, ::2].transpose(2, 3)  # their first columns are empty
    batches = list(zip(images.split(64), digits().test.labels.split(64), strict=True))
    return Patient(Half(network), batches[:4])


@torch.no_grad()
def _share_not_finite(patient: Patient) -> float:
    outputs = torch.cat([patient.model(inputs) for inputs, _ in patient.batches])
    return 100 * (~outputs.isfinite()).float().mean().item()
