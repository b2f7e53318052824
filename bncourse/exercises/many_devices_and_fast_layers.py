"""Set 7: statistics of many devices, and what a layer keeps (chapters 14 and 15)."""

import torch
from torch import nn
from torch.nn import functional as F

from bncourse.exercises.compare import expect, expect_items, expect_number, require, sample
from bncourse.exercises.exercise import Exercise

merge = Exercise("merge-statistics", "One batch from many devices", chapter=14, minutes=15, level="medium")
weights = Exercise("loss-weights", "Devices with unequal parts", chapter=14, minutes=10, level="easy")
kept = Exercise("kept-activations", "What is kept for the backward pass?", chapter=15, minutes=20, level="medium")
EXERCISES = (merge, weights, kept)


def compare_merge(answer, parts, **tolerance):
    """Compare with the mean and the variance of all values, computed in float64."""
    means = torch.stack([part.mean(0) for part in parts])
    variances = torch.stack([part.var(0, correction=0) for part in parts])
    counts = torch.tensor([len(part) for part in parts])
    got_mean, got_variance = expect_items(answer(means, variances, counts), 2, "the answer")
    whole = torch.cat(parts).double()
    share = (counts / counts.sum())[:, None]
    mean, middle = (share * means).sum(0), means.mean(0)
    expect(
        got_mean,
        whole.mean(0),
        "the mean",
        {"A device with more values has to count for more: weight by counts.": middle},
        **tolerance,
    )
    within = (share * variances).sum(0)
    between = (share * (means - mean).square()).sum(0)
    lost = (
        "This is the mean of the variances. It leaves out how far apart the devices' means are: add the variance of "
        "the means."
    )
    mistakes = {
        lost: within,
        f"{lost} ": variances.mean(0),
        "This is the variance of the means alone. Add the mean of the variances.": between,
        "Weight both parts by counts.": variances.mean(0) + (means - middle).square().mean(0),
        "Take the means' distances from the mean of the whole batch, which is weighted by counts.": (
            within + (share * (means - middle).square()).sum(0)
        ),
        "This is the unbiased variance. SyncBatchNorm normalizes with the biased one.": whole.var(0),
    }
    digits = (
        "The difference of two large numbers (mean square minus squared mean) has lost its precision: add up "
        "squared distances from the mean of the whole batch instead."
    )
    expect(got_variance, whole.var(0, correction=0), "the variance", mistakes, otherwise=digits, **tolerance)


merge.add("two devices, parts of equal size", compare_merge, [sample(4, 3), sample(4, 3, seed=1) + 3])
merge.add("three devices, unequal parts", compare_merge, [2 * sample(n, 2, seed=n) + n for n in (2, 5, 9)])
merge.add("inputs near 10,000", compare_merge, [sample(n, 2, seed=n) + 1e4 + n for n in (3, 6)], rtol=1e-3, atol=1e-2)


def compare_weights(answer, sizes):
    """The mean over the devices of the weighted losses' gradients is the gradient of the batch's mean loss."""
    given = list(sizes)
    got = expect_items(answer(given), len(sizes), "the answer")
    factors = torch.tensor([expect_number(value, "each factor") for value in got]).double()
    require(given == list(sizes), "the sizes you were given have changed.")
    inputs = sample(sum(sizes), 3, seed=1, dtype=torch.float64)
    targets = sample(sum(sizes), seed=2, dtype=torch.float64)
    parameter = torch.ones(3, dtype=torch.float64, requires_grad=True)

    def gradient(x, y):
        (slope,) = torch.autograd.grad(F.mse_loss(x @ parameter, y), parameter)
        return slope

    parts = [gradient(x, y) for x, y in zip(inputs.split(list(sizes)), targets.split(list(sizes)), strict=True)]

    def mean_of(weights):
        return sum(w * part for w, part in zip(weights, parts, strict=True)) / len(parts)

    total, devices = sum(sizes), len(sizes)
    mistakes = {
        "DistributedDataParallel takes the MEAN over the devices: multiply by their number as well.": mean_of(
            [size / total for size in sizes]
        ),
        "All parts count the same here, so each image in a small part counts for more.": mean_of([1.0] * devices),
        "It is the other way round: a larger part needs a larger factor.": mean_of(
            [total / (devices * size) for size in sizes]
        ),
        "The factor is the part's size times the number of devices, divided by the size of the WHOLE batch.": mean_of(
            list(map(float, sizes))
        ),
    }
    expect(mean_of(factors), gradient(inputs, targets), "the mean gradient", mistakes, rtol=1e-6, atol=1e-9)


weights.add("two devices: 20 and 12 images", compare_weights, (20, 12))
weights.add("four devices: 8, 8, 8 and 3 images", compare_weights, (8, 8, 8, 3))
weights.add("equal parts", compare_weights, (6, 6, 6))


def tensors_kept(layers):
    """How many tensors of an activation's size autograd keeps for these layers, each counted once."""
    parts = {
        "conv": lambda: nn.Conv2d(8, 8, 3, padding=1),
        "norm": lambda: nn.BatchNorm2d(8),
        "relu": nn.ReLU,
    }
    x = sample(4, 8, 6, 6)
    found = set()

    def keep(tensor):
        if tensor.numel() == x.numel():
            found.add((tensor.data_ptr(), tensor.numel()))
        return tensor

    model = nn.Sequential(*(parts[layer]() for layer in layers))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(x)  # held, so that no address is used twice
    require(output.requires_grad, "nothing is trained")
    return len(found)


def compare_kept(answer, layers):
    got = expect_number(answer(list(layers)), f"the number for {', '.join(layers)}")
    own = sum(layer != "relu" for layer in layers) + layers.count("relu")
    inputs = {"Who keeps WHAT? A convolution and a norm keep their input, a ReLU keeps its OUTPUT.": len(layers) + 1}
    twice = "Two layers may keep the same tensor, which counts only once: a ReLU's output is the next layer's input."
    expect(got, tensors_kept(layers), f"the number for {', '.join(layers)}", {twice: own, **inputs})


for layers in (
    ("conv",),
    ("conv", "norm"),
    ("conv", "norm", "relu"),
    ("conv", "relu", "norm"),
    ("conv", "norm", "relu", "conv"),
    ("conv", "relu", "norm", "conv", "relu"),
):
    kept.add(", ".join(layers), compare_kept, layers)
