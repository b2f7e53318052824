"""F. Many devices.

One process plays all of them, one after the other.
"""

import copy

import torch
from torch import nn
from torch.nn import functional

from bncourse.museum.patients import batches_of, cnn, disagreement, images_and_labels, mean_loss, mlp, shuffled
from bncourse.museum.specimen import Patient, specimen


@specimen(
    before="DistributedDataParallel(model)  # 2 images on each device",
    after="DistributedDataParallel(convert_sync_batchnorm(model))",
    damage=mean_loss,
    measure="cross-entropy of the test digits, nats",
    chapter=14,
    threads=[
        ("https://github.com/pytorch/pytorch/issues/2584", "2017-08-31"),
        ("https://github.com/yu-changqian/TorchSeg/issues/95", "2019-11-29"),
        ("https://github.com/fundamentalvision/BEVFormer/issues/136", "2022-12-08"),
    ],
    rules=("BN-F05", "BN-W11", "BN-S32"),
)
def two_samples_on_each_device(fixed: bool) -> Patient:
    """On 16 devices the model trains worse than on one, with the same total batch.

    Data parallelism averages gradients. Each device normalizes with the statistics of its own 2 samples.
    """
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    total = shuffled(32)
    for _ in range(60):
        images, labels = next(total)
        size = 32 if fixed else 2  # with synchronized norms the devices act as one
        optimizer.zero_grad()
        for part, right in zip(images.split(size), labels.split(size), strict=True):
            (functional.cross_entropy(model(part), right) * size / 32).backward()
        optimizer.step()
    return Patient(model, batches_of(size=32 if fixed else 2, count=8), optimizer)


@specimen(
    before="DistributedDataParallel(model, broadcast_buffers=False)",
    after="DistributedDataParallel(model)  # and the buffers of rank 0 are everybody's",
    damage=lambda patient: disagreement(*patient.averaged),
    measure="share of inputs for which two ranks answer differently, %",
    chapter=14,
    threads=[
        ("https://github.com/pytorch/pytorch/issues/13711", "2018-11-08"),
        ("https://github.com/facebookresearch/ClassyVision/pull/304", "2019-12-06"),
        ("https://github.com/open-mmlab/mmdetection/issues/2539", "2020-04-26"),
        ("https://github.com/open-mmlab/mmaction2/pull/675", "2021-03-04"),
    ],
)
def ranks_with_different_statistics(fixed: bool) -> Patient:
    """The score that training reports is not the score of the checkpoint that it saves.

    Gradients are synchronized, so all ranks have the same parameters. Buffers are not: every rank has the running
    statistics of its own data, and rank 0's are saved.
    """
    images, labels = images_and_labels()
    order = images.mean((1, 2, 3)).argsort()  # nobody shuffled: each rank has its part of the data
    ranks = [cnn()]
    ranks.append(copy.deepcopy(ranks[0]))
    optimizer = torch.optim.Adam(ranks[0].parameters(), lr=0.003)
    parts = [order[:700], order[700:]]
    for _ in range(100):
        optimizer.zero_grad()
        for rank, part in zip(ranks, parts, strict=True):
            chosen = part[torch.randint(len(part), (32,))]
            loss = functional.cross_entropy(rank(images[chosen]), labels[chosen])
            gradients = torch.autograd.grad(loss / 2, list(rank.parameters()))
            for parameter, gradient in zip(ranks[0].parameters(), gradients, strict=True):
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        optimizer.step()
        _copy(ranks[0], ranks[1], buffers=fixed)
    return Patient(ranks[0].eval(), batches_of(), averaged=[rank.eval() for rank in ranks])


@torch.no_grad()
def _copy(source: nn.Module, target: nn.Module, buffers: bool) -> None:
    for kept, new in zip(target.parameters(), source.parameters(), strict=True):
        kept.copy_(new)
    if buffers:
        for kept, new in zip(target.buffers(), source.buffers(), strict=True):
            kept.copy_(new)
