"""Set 2: training and inference, and the noise between batches (chapters 3 and 4)."""

import math

import torch
from torch import nn

from bncourse.exercises.compare import expect, expect_items, expect_number, require, sample
from bncourse.exercises.exercise import Exercise

REVERSED = (
    "The momentum convention is reversed. In torch the momentum is the weight of the NEW value: "
    "running = (1 - momentum) * running + momentum * new."
)
BIASED_RUNNING = (
    "This stores the biased variance. BatchNorm normalizes with the biased one but stores the unbiased one: "
    "divide by n - 1 (correction=1)."
)

running_statistics = Exercise(
    "running-statistics", "One step of the running statistics", chapter=3, minutes=15, level="medium"
)
warm_up = Exercise("warm-up", "How long do running statistics take?", chapter=3, minutes=10, level="easy")
evaluate = Exercise("evaluate", "Evaluate without leaving a trace", chapter=3, minutes=20, level="medium")
batch_noise = Exercise("batch-noise", "How noisy is a batch's mean?", chapter=4, minutes=10, level="easy")
EXERCISES = (running_statistics, warm_up, evaluate, batch_noise)


def running_mistakes(old_mean, old, x, momentum=0.1):
    """The usual mistakes, and what they make of the running mean and of the running variance."""
    keep, axes, n = 1 - momentum, (0, *range(2, x.dim())), len(x)
    mean, biased, unbiased = x.mean(axes), x.var(axes, correction=0), x.var(axes)
    by_n = old.lerp(biased * n / (n - 1), momentum)
    pixels = old.lerp(x.var(0).reshape(x.shape[1], -1).mean(1), momentum)
    of_mean = {
        REVERSED: old_mean.lerp(mean, keep),
        "This is the batch's own value: the old running value has no part in it.": mean,
        "The running mean never changes in training.": old_mean,
    }
    of_variance = {
        BIASED_RUNNING: old.lerp(biased, momentum),
        REVERSED: old.lerp(unbiased, keep),
        "Two mistakes at once: the momentum convention is reversed, and the variance is the biased one.": (
            old.lerp(biased, keep)
        ),
        "The number of values per channel is N * H * W, not N: the unbiased variance divides by N * H * W - 1.": by_n,
        "This averages the variances of the pixels. Take one variance over all N * H * W values of a channel.": pixels,
        "The buffer holds the variance, not the standard deviation.": old.lerp(unbiased.sqrt(), momentum),
        "The running variance never changes in training.": old,
    }
    return of_mean, of_variance


def compare_running(answer, x, momentum=0.1, steps=1):
    """Compare some steps with the buffers of torch's layer."""
    channels = x.shape[1]
    layer = (nn.BatchNorm1d if x.dim() == 2 else nn.BatchNorm2d)(channels, momentum=momentum)
    layer.running_mean.copy_(sample(channels, seed=5))
    layer.running_var.copy_(sample(channels, seed=6).square() + 2)
    mean, variance = layer.running_mean.clone(), layer.running_var.clone()
    for step in range(steps):
        batch = x + step
        given, before = (mean, variance), (mean.clone(), variance.clone())
        mean, variance = expect_items(answer(*given, batch, momentum), 2, "the answer")
        layer.train()(batch)
        require(
            all(map(torch.equal, given, before)),
            "the tensors you were given have changed.",
            "Return new tensors: do not change running_mean or running_var in place.",
        )
        of_mean, of_variance = running_mistakes(*before, batch, momentum)
        expect(mean, layer.running_mean, "the running mean", of_mean)
        expect(variance, layer.running_var, "the running variance", of_variance)


running_statistics.add("features: one step with a (4, 3) batch", compare_running, 2 * sample(4, 3))
running_statistics.add("images: one step with a (2, 3, 2, 2) batch", compare_running, sample(2, 3, 2, 2) + 1, 0.3)
running_statistics.add("three steps in a row", compare_running, sample(5, 2), steps=3)


@running_statistics.case("nothing for autograd to remember")
def running_graph(answer):
    x = sample(4, 3).requires_grad_()
    results = expect_items(answer(torch.zeros(3), torch.ones(3), x, 0.1), 2, "the answer")
    for result in results:
        expect(result.shape[0], 3, "the length of each result")
        require(
            not result.requires_grad,
            "the new running statistics carry a graph back to x.",
            "Compute them under torch.no_grad() (or from x.detach()): otherwise the graph grows at every step.",
        )


def compare_warm_up(answer, fraction, momentum):
    """Count the steps a real BatchNorm needs on a constant mean of 1, and compare."""
    layer = nn.BatchNorm1d(1, momentum=momentum).double()
    steps = 0
    while layer.running_mean.item() < fraction - 1e-12:
        layer(torch.tensor([[0.0], [2.0]], dtype=torch.float64))
        steps += 1
    log, ceil = math.log, math.ceil
    mistakes = {
        "After this many steps it is not there yet: round up.": math.floor(log(1 - fraction) / log(1 - momentum)),
        "This is where the old value's weight, (1 - momentum)^k, falls below the fraction itself. "
        "The share that comes from data is 1 - (1 - momentum)^k.": ceil(log(fraction) / log(1 - momentum)),
        "The momentum convention is reversed: after k steps the OLD value has weight (1 - momentum)^k.": (
            ceil(log(1 - fraction) / log(momentum))
        ),
        "Each step covers a share of what is left, not of the whole: the approach is exponential.": (
            ceil(fraction / momentum - 1e-9)
        ),
    }
    expect(answer(fraction, momentum), steps, f"the number of steps to {fraction:.0%} at momentum {momentum}", mistakes)


warm_up.add("to 65% at momentum 0.1", compare_warm_up, 0.65, 0.1)
warm_up.add("to 99% at momentum 0.1", compare_warm_up, 0.99, 0.1)
warm_up.add("to 99% at momentum 0.01", compare_warm_up, 0.99, 0.01)


def evaluation_model():
    """A model whose accuracy in training mode is another one, and 40 sorted samples that show it."""
    labels = torch.arange(40) // 20
    images = sample(40, 1, 2, 2) + 2.0 * labels.reshape(-1, 1, 1, 1)
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].running_mean.fill_(1.0)
        model[1].running_var.fill_(2.0)
        model[2].weight.copy_(torch.tensor([[-1.0] * 4, [1.0] * 4]))
        model[2].bias.zero_()
    return model, images, labels


def _accuracies(model, images, labels, batch_size):
    with torch.no_grad():
        right = (torch.cat([model(part).argmax(1) for part in images.split(batch_size)]) == labels).double()
    return right.mean(), torch.stack([part.mean() for part in right.split(batch_size)]).mean()


def compare_accuracy(answer, batch_size):
    """Compare the accuracy with the right one, the one in training mode and the mean over batches."""
    model, images, labels = evaluation_model()
    got = expect_number(answer(model, images, labels, batch_size), "the accuracy")
    model, images, labels = evaluation_model()
    single = 1 in (batch_size, len(images) % batch_size)  # BatchNorm cannot train on one sample
    in_training = float("nan") if single else _accuracies(model, images, labels, batch_size)[0]
    model, images, labels = evaluation_model()
    expected, over_batches = _accuracies(model.eval(), images, labels, batch_size)
    mistakes = {
        "This averages the accuracies of the batches, so the samples in a smaller last batch count more. "
        "Count the correct samples and divide once, at the end.": over_batches,
        "This is the accuracy in training mode: "
        "each batch is normalized with its own statistics. Call model.eval().": in_training,
        "This is a percentage; return a fraction between 0 and 1.": 100 * expected,
        "This is the number of correct samples; divide it by the number of samples.": 40 * expected,
    }
    expect(got, expected, "the accuracy", mistakes)


evaluate.add("the accuracy of sorted batches of 20", compare_accuracy, 20)
evaluate.add("a smaller last batch: 40 samples, 13 at a time", compare_accuracy, 13)


@evaluate.case("the running statistics stay as they were")
def evaluate_statistics(answer):
    model, images, labels = evaluation_model()
    expect_number(answer(model, images, labels, 10), "the accuracy")
    require(
        bool((model[1].running_mean == 1.0).all()) and int(model[1].num_batches_tracked) == 0,
        "evaluating changed the running statistics.",
        "torch.no_grad() does not stop BatchNorm from updating them; model.eval() does.",
    )


@evaluate.case("every module is left in the mode it was in")
def evaluate_mode(answer):
    model, images, labels = evaluation_model()
    model[1].eval()  # a frozen BatchNorm inside a model that is training
    expect_number(answer(model, images, labels, 10), "the accuracy")
    require(model.training, "the model is left in evaluation mode.", "Put the mode back when you are done.")
    require(
        not model[1].training,
        "the frozen BatchNorm was switched to training mode.",
        "model.train() switches every module. Remember each module's own `training` flag, and put it back.",
    )
    model.eval()
    answer(model, images, labels, 10)
    require(not model.training, "a model that was in evaluation mode is left in training mode.", "Put its mode back.")


@evaluate.case("no gradients are recorded")
def evaluate_gradients(answer):
    model, images, labels = evaluation_model()
    seen = []
    model[0].register_forward_pre_hook(lambda part, inputs: seen.append((torch.is_grad_enabled(), len(inputs[0]))))
    expect_number(answer(model, images, labels, 10), "the accuracy")
    require(bool(seen), "the model was not run.", "Call the model, model(batch), so that hooks run as well.")
    require(
        not any(gradients_on for gradients_on, _ in seen),
        "gradients were recorded.",
        "Run the model under torch.no_grad().",
    )


@evaluate.case("at most batch_size samples at a time")
def evaluate_batches(answer):
    model, images, labels = evaluation_model()
    sizes = []
    model[0].register_forward_pre_hook(lambda part, inputs: sizes.append(len(inputs[0])))
    expect_number(answer(model, images, labels, 10), "the accuracy")
    most = max(sizes, default=0)
    hint = "Split the images into batches: images[start : start + batch_size], or images.split(batch_size)."
    require(most <= 10, f"{most} samples went through the model at once; batch_size was 10.", hint)


def compare_noise(answer, std, n, height=1, width=1, expected=None, **tolerance):
    """Compare with std / sqrt(m), or with what was measured."""
    m = n * height * width
    mistakes = {
        "This is how the variance of the mean falls; its standard deviation falls as 1 / sqrt(m).": std / m,
        "This is the variance of the mean; the question asks for its standard deviation.": std**2 / m,
        "A channel's mean is taken over N * H * W values: the pixels count too.": std / math.sqrt(n),
        "This does not depend on the batch size: it is the spread of single values, not of their mean.": std,
    }
    expected = std / math.sqrt(m) if expected is None else expected
    expect(answer(std, n, height, width), expected, "the noise", mistakes, **tolerance)


@batch_noise.case("features: batches of 25, measured")
def measured_noise(answer):
    compare_noise(answer, 2.0, 25, expected=(2.0 * sample(20_000, 25)).mean(1).std(), rtol=0.03)


batch_noise.add("batches four times as large", compare_noise, 2.0, 100)
batch_noise.add("images: 4 of 8 x 8 pixels", compare_noise, 1.0, 4, 8, 8)
