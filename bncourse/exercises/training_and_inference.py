"""Set 2: training and inference, and the noise between batches (chapters 3 and 4)."""

import math

import torch
from torch import nn

from bncourse.exercises.compare import expect, expect_items, expect_number, require, sample
from bncourse.exercises.exercise import Case, Exercise

REVERSED = (
    "The momentum convention is reversed. In torch the momentum weights the NEW value: "
    "running = (1 - momentum) * running + momentum * new."
)
BIASED_RUNNING = (
    "This stores the biased variance. BatchNorm normalizes with the biased one but stores the unbiased one: "
    "divide by n - 1 (correction=1)."
)
COUNT_IS_NOT_N = "The number of values per channel is N * H * W, not N: the unbiased variance divides by N * H * W - 1."
REVERSED_AND_BIASED = "Two mistakes at once: the momentum convention is reversed, and the variance is the biased one."
VARIANCE_OF_PIXELS = (
    "This averages the variances of the pixels. Take one variance over all N * H * W values of a channel."
)
REPLACED = "This is the batch's own value: the old running value has no part in it."
TRAIN_MODE = "This is the accuracy in training mode: each batch is normalized by its own statistics. Call model.eval()."
MEAN_OF_BATCHES = (
    "This averages the accuracies of the batches, so the samples of a smaller last batch count more. "
    "Count correct samples and divide once, at the end."
)

running_statistics = Exercise(
    name="running-statistics", title="One step of the running statistics", chapter=3, minutes=15, level="medium"
)
warm_up = Exercise(name="warm-up", title="How long do running statistics take?", chapter=3, minutes=10, level="easy")
evaluate = Exercise(name="evaluate", title="Evaluate without leaving a trace", chapter=3, minutes=20, level="medium")
batch_noise = Exercise(name="batch-noise", title="How noisy is a batch's mean?", chapter=4, minutes=10, level="easy")
EXERCISES = (running_statistics, warm_up, evaluate, batch_noise)


def compare_running(answer, x, momentum=0.1, steps=1):
    """Compare some steps with the buffers of torch's layer."""
    channels = x.shape[1]
    layer = (nn.BatchNorm1d if x.dim() == 2 else nn.BatchNorm2d)(channels, momentum=momentum)
    layer.running_mean.copy_(sample(channels, seed=5))
    layer.running_var.copy_(sample(channels, seed=6).square() + 2)
    mean, variance = layer.running_mean.clone(), layer.running_var.clone()
    axes = (0, *range(2, x.dim()))
    for step in range(steps):
        batch = x + step
        given, before = (mean, variance), (mean.clone(), variance.clone())
        mean, variance = expect_items(answer(*given, batch, momentum), 2, "the answer")
        layer.train()(batch)
        require(
            all(map(torch.equal, given, before)),
            "the tensors you were given have changed.",
            "Return new tensors: do not write to running_mean or running_var in place here.",
        )
        keep, old_mean, old = 1 - momentum, *before
        new_mean, biased, unbiased = batch.mean(axes), batch.var(axes, correction=0), batch.var(axes)
        mistakes = {REVERSED: momentum * old_mean + keep * new_mean, REPLACED: new_mean}
        expect(mean, layer.running_mean, "the running mean", mistakes)
        of_pixels = batch.var(0).reshape(channels, -1).mean(1)
        mistakes = {
            BIASED_RUNNING: keep * old + momentum * biased,
            REVERSED: momentum * old + keep * unbiased,
            REVERSED_AND_BIASED: momentum * old + keep * biased,
            COUNT_IS_NOT_N: keep * old + momentum * biased * len(batch) / (len(batch) - 1),
            VARIANCE_OF_PIXELS: keep * old + momentum * of_pixels,
            "The buffer holds the variance, not the standard deviation.": keep * old + momentum * unbiased.sqrt(),
        }
        expect(variance, layer.running_var, "the running variance", mistakes)


running_statistics.cases += [
    Case("features: one step with a (4, 3) batch", lambda answer: compare_running(answer, 2 * sample(4, 3))),
    Case(
        "images: one step with a (2, 3, 2, 2) batch",
        lambda answer: compare_running(answer, sample(2, 3, 2, 2) + 1, 0.3),
    ),
    Case("three steps in a row", lambda answer: compare_running(answer, sample(5, 2), steps=3)),
]


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
        "What has arrived is 1 - (1 - momentum)^k.": ceil(log(fraction) / log(1 - momentum)),
        "The momentum convention is reversed: after k steps the OLD value has weight (1 - momentum)^k.": (
            ceil(log(1 - fraction) / log(momentum))
        ),
        "Each step covers a share of what is left, not of the whole: the approach is exponential.": (
            ceil(fraction / momentum - 1e-9)
        ),
    }
    expect(answer(fraction, momentum), steps, f"the number of steps to {fraction:.0%} at momentum {momentum}", mistakes)


warm_up.cases += [
    Case("to 65% at momentum 0.1", lambda answer: compare_warm_up(answer, 0.65, 0.1)),
    Case("to 99% at momentum 0.1", lambda answer: compare_warm_up(answer, 0.99, 0.1)),
    Case("to 99% at momentum 0.01", lambda answer: compare_warm_up(answer, 0.99, 0.01)),
]


class Spy(nn.Module):
    """Passes its input on; remembers whether gradients were on and how many samples came at once."""

    def __init__(self):
        super().__init__()
        self.saw_gradients_on, self.batch_sizes = False, []

    def forward(self, x):
        self.saw_gradients_on |= torch.is_grad_enabled()
        self.batch_sizes.append(len(x))
        return x


def evaluation_model():
    """A model whose accuracy in training mode is another one, and 40 sorted samples that show it."""
    labels = torch.arange(40) // 20
    images = sample(40, 1, 2, 2) + 2.0 * labels.reshape(-1, 1, 1, 1)
    model = nn.Sequential(Spy(), nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 2))
    with torch.no_grad():
        model[2].running_mean.fill_(1.0)
        model[2].running_var.fill_(2.0)
        model[3].weight.copy_(torch.tensor([[-1.0] * 4, [1.0] * 4]))
        model[3].bias.zero_()
    model.train()
    return model, images, labels


def _accuracies(model, images, labels, batch_size):
    with torch.no_grad():
        right = torch.cat([model(images[i : i + batch_size]).argmax(1) for i in range(0, len(images), batch_size)])
    right = (right == labels).double()
    return right.mean().item(), torch.stack([part.mean() for part in right.split(batch_size)]).mean().item()


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
        MEAN_OF_BATCHES: over_batches,
        TRAIN_MODE: in_training,
        "This is a percentage; return the share, between 0 and 1.": 100 * expected,
        "This is the number of correct samples; divide by how many there are.": 40 * expected,
    }
    expect(got, expected, "the accuracy", mistakes)


evaluate.cases += [
    Case("the accuracy of sorted batches of 20", lambda answer: compare_accuracy(answer, 20)),
    Case("a smaller last batch: 40 samples, 13 at a time", lambda answer: compare_accuracy(answer, 13)),
]


@evaluate.case("the running statistics stay as they were")
def evaluate_statistics(answer):
    model, images, labels = evaluation_model()
    expect_number(answer(model, images, labels, 10), "the accuracy")
    require(
        bool((model[2].running_mean == 1.0).all()) and int(model[2].num_batches_tracked) == 0,
        "evaluating changed the running statistics.",
        "torch.no_grad() does not stop BatchNorm from updating them; model.eval() does.",
    )


@evaluate.case("every module is left in the mode it was in")
def evaluate_mode(answer):
    model, images, labels = evaluation_model()
    model[2].eval()  # a frozen BatchNorm inside a model that is training
    expect_number(answer(model, images, labels, 10), "the accuracy")
    require(model.training, "the model is left in evaluation mode.", "Put the mode back when you are done.")
    require(
        not model[2].training,
        "the frozen BatchNorm was switched to training mode.",
        "model.train() switches every module. Remember each module's own `training` before, and put it back.",
    )
    model.eval()
    answer(model, images, labels, 10)
    require(not model.training, "a model that came in evaluation mode left in training mode.", "Put back what was.")


@evaluate.case("no gradients are recorded")
def evaluate_gradients(answer):
    model, images, labels = evaluation_model()
    expect_number(answer(model, images, labels, 10), "the accuracy")
    require(not model[0].saw_gradients_on, "gradients were recorded.", "Run the model under torch.no_grad().")
    require(max(model[0].batch_sizes) <= 10, "more than batch_size samples went through the model at once.")


def compare_noise(answer, std, n, height=1, width=1, expected=None, **tolerance):
    """Compare with std / sqrt(m), or with what was measured."""
    m = n * height * width
    mistakes = {
        "This is how the variance of the mean falls; its standard deviation falls as 1 / sqrt(m).": std / m,
        "This is the variance of the mean; the question asks for its standard deviation.": std**2 / m,
        "A channel's mean is over N * H * W values: the pixels count too.": std / math.sqrt(n),
        "This does not depend on the batch size: it is the spread of single values, not of their mean.": std,
    }
    expected = std / math.sqrt(m) if expected is None else expected
    expect(answer(std, n, height, width), expected, "the noise", mistakes, **tolerance)


batch_noise.cases += [
    Case(
        "features: batches of 25, measured",
        lambda answer: compare_noise(answer, 2.0, 25, expected=(2.0 * sample(20_000, 25)).mean(1).std(), rtol=0.03),
    ),
    Case("batches four times as large", lambda answer: compare_noise(answer, 2.0, 100)),
    Case("images: 4 of 8 x 8 pixels", lambda answer: compare_noise(answer, 1.0, 4, 8, 8)),
]
