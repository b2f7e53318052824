"""Set 5: the backward pass, folding and recalibration (chapters 12 and 13)."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from bncourse.exercises.compare import CaseFailed, expect, expect_items, require, sample, two_slips
from bncourse.exercises.exercise import Exercise
from bncourse.exercises.normalizing_a_batch import CONSTANTS

backward = Exercise("backward", "The backward pass by hand", chapter=12, minutes=40, level="hard")
fold = Exercise("fold", "Fold BatchNorm into a convolution", chapter=13, minutes=30, level="hard")
recalibrate = Exercise("recalibrate", "Recalibrate the running statistics", chapter=13, minutes=30, level="hard")
EXERCISES = (backward, fold, recalibrate)


def compare_backward(answer, x, eps=1e-5):
    """Compare the three gradients with autograd's, in float64."""
    x = x.double().requires_grad_()
    weight = (sample(x.shape[1], seed=2, dtype=torch.float64) + 3).requires_grad_()
    bias = sample(x.shape[1], seed=3, dtype=torch.float64).requires_grad_()
    dy = sample(*x.shape, seed=4, dtype=torch.float64)
    output = F.batch_norm(x, None, None, weight, bias, training=True, eps=eps)
    dx, dweight, dbias = torch.autograd.grad(output, (x, weight, bias), dy)
    with torch.no_grad():
        inverse = (x.var(0, correction=0) + eps).rsqrt()
        normalized = (x - x.mean(0)) * inverse
        scaled = weight * dy
        mean_term, variance_term = scaled.mean(0), normalized * (scaled * normalized).mean(0)
        got = expect_items(answer(dy, x.detach(), weight.detach(), eps), 3, "the answer")
        unbiased = "This is what the unbiased variance gives. x_hat divides by m under the root: pass correction=0."
        averaged = "This is the mean over the batch. The parameter acts on every sample, so its gradient is a sum."
        expect(got[2], dbias, "dbias", {averaged: dy.mean(0)})
        mistakes = {
            averaged: (dy * normalized).mean(0),
            "weight multiplies the normalized input, so its gradient needs x_hat, not x.": (dy * x).sum(0),
            "x_hat divides by sqrt(variance + eps); this leaves eps out.": (
                dy * (x - x.mean(0)) / x.var(0, correction=0).sqrt()
            ).sum(0),
            unbiased: (dy * (x - x.mean(0)) * (x.var(0) + eps).rsqrt()).sum(0),
            two_slips(unbiased, "And eps is left out."): (dy * (x - x.mean(0)) * x.var(0).rsqrt()).sum(0),
            two_slips(averaged, unbiased): (dy * (x - x.mean(0)) * (x.var(0) + eps).rsqrt()).mean(0),
        }
        expect(got[1], dweight, "dweight", mistakes)
        mistakes = {
            CONSTANTS: scaled * inverse,
            "The path through the variance is missing: the term x_hat * mean(dy_hat * x_hat).": (
                inverse * (scaled - mean_term)
            ),
            "The path through the mean is missing: the term mean(dy_hat).": inverse * (scaled - variance_term),
            "The factor weight is missing: dy_hat = weight * dy.": dx / weight,
            "The last factor is missing: 1 / sqrt(variance + eps).": dx / inverse,
            "The second term needs x_hat in front: multiply mean(dy_hat * x_hat) by x_hat.": (
                inverse * (scaled - mean_term - (scaled * normalized).mean(0))
            ),
            "You add the two correction terms; they have to be subtracted.": (
                inverse * (scaled + mean_term + variance_term)
            ),
            "The correction terms are means over the batch, not sums.": (
                inverse * (scaled - scaled.sum(0) - normalized * (scaled * normalized).sum(0))
            ),
        }
        expect(got[0], dx, "dx", mistakes, rtol=1e-6, atol=1e-8)


backward.add("an (8, 3) batch", compare_backward, 2 * sample(8, 3) + 1)
backward.add("a small variance and a large eps", compare_backward, 0.3 * sample(5, 4), eps=0.1)
backward.add("a large batch: (200, 2)", compare_backward, sample(200, 2) - 3)


def is_close(got, expected):
    return torch.allclose(got, expected, rtol=1e-4, atol=1e-5)


def trained_pair(*, bias=False, eps=1e-5, affine=True, **options):
    """A convolution and a BatchNorm as training leaves them: nothing is 0 or 1."""
    torch.manual_seed(3)
    convolution = nn.Conv2d(4, 6, 3, bias=bias, **options)
    norm = nn.BatchNorm2d(6, eps=eps, affine=affine)
    with torch.no_grad():
        norm.running_mean.copy_(sample(6, seed=5))
        norm.running_var.copy_(sample(6, seed=6).square() / 4 + 0.05)
        if affine:
            norm.weight.copy_(sample(6, seed=7) + 2)
            norm.bias.copy_(sample(6, seed=8))
    return convolution.eval(), norm.eval()


def compare_fold(answer, **options):
    """One folded convolution must give what the pair gives, and the pair must stay as it was."""
    convolution, norm = trained_pair(**options)
    pair = nn.Sequential(convolution, norm)
    before = copy.deepcopy(pair.state_dict())
    folded = answer(convolution, norm)
    require(isinstance(folded, nn.Conv2d), f"the answer should be an nn.Conv2d; got a {type(folded).__name__}.")
    same = all(map(torch.equal, before.values(), pair.state_dict().values())) and folded is not convolution
    require(same, "the original layers have changed.", "Fold into a new nn.Conv2d.")
    require(folded.bias is not None, "the folded convolution has no bias.", "BatchNorm's shift has to go somewhere.")
    x = sample(2, 4, 8, 8)
    with torch.no_grad():
        expected, plain = norm(convolution(x)), convolution(x)
        try:
            got = folded(x)
        except RuntimeError as error:
            raise CaseFailed(f"the folded convolution does not run: {error}", KEEP_OPTIONS) from None
        own = 0.0 if convolution.bias is None else convolution.bias[:, None, None]
        mean, variance, eps = norm.running_mean, norm.running_var, norm.eps

        def normalized(x, mean=mean, variance=variance, eps=eps):
            return F.batch_norm(x, mean, variance, norm.weight, norm.bias, eps=eps)

        unbiased, uncentred = normalized(plain - own), normalized(plain, 0 * mean)
        mistakes = {
            "eps is missing: the scale is weight / sqrt(running_var + eps).": normalized(plain, eps=0.0),
            "The convolution's own bias is missing: it has to be shifted and scaled like everything else.": unbiased,
            "The convolution's own bias is added without being scaled.": unbiased + own,
            "The running mean is missing: the bias is beta - mean * scale.": uncentred,
            "The scale divides by the standard deviation, which is the square root of the variance.": (
                normalized(plain, variance=(variance + eps) ** 2, eps=0.0)
            ),
            "The running mean is not scaled: the bias is beta - mean * scale.": uncentred - mean[:, None, None],
        }
        require(tuple(got.shape) == tuple(expected.shape), f"the output has shape {tuple(got.shape)}.", KEEP_OPTIONS)
        expect(got, expected, "the output of the folded convolution", mistakes, rtol=1e-3, atol=1e-4)


KEEP_OPTIONS = "Give the new convolution the old one's stride, padding, dilation and groups."


fold.add("a convolution without a bias", compare_fold)
fold.add("a convolution with a bias, and eps 0.1", compare_fold, bias=True, eps=0.1)
fold.add("stride 2, padding 1, 2 groups", compare_fold, stride=2, padding=1, groups=2)
fold.add("a norm without weight and bias (affine=False)", compare_fold, affine=False, bias=True)


def stale_model(last=6):
    """A model whose BatchNorm has seen other data, with dropout before a second one; and its batches."""
    torch.manual_seed(4)
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4), nn.Dropout(0.5), nn.BatchNorm1d(4, momentum=0.2))
    with torch.no_grad():
        for norm in (model[0], model[3]):
            norm.running_mean.fill_(7.0)
            norm.running_var.fill_(9.0)
            norm.num_batches_tracked.fill_(50)
    return model.eval(), [2 * sample(n, 3, seed=30 + i) + i for i, n in enumerate((6, 6, 6, 6, last))]


def compare_population(norm, batches, where):
    """The running statistics are those of all samples of all batches together; what else they usually are."""
    mean, pooled = torch.cat(batches).mean(0), torch.cat(batches).var(0, correction=0)
    means, variances = torch.stack([b.mean(0) for b in batches]), torch.stack([b.var(0) for b in batches])
    stale, stale_variance = torch.full_like(mean, 7.0), torch.full_like(mean, 9.0)
    rate = 0.1 if norm.momentum is None else norm.momentum
    moving, moving_variance = torch.zeros_like(mean), torch.ones_like(mean)
    continued, continued_variance = stale, stale_variance
    for new, variance in zip(means, variances, strict=True):
        moving, continued = moving.lerp(new, rate), continued.lerp(new, rate)
        moving_variance, continued_variance = (v.lerp(variance, rate) for v in (moving_variance, continued_variance))
    unchanged = "The statistics have not changed: run the batches through the model, and take their statistics."
    old = "The old statistics are still in the average. Begin without them (reset_running_stats())."
    exponential = "This is the exponential average, dominated by the last batches. All samples should count the same."
    by_batch = (
        "This averages the batches' means, so a smaller batch counts as much as a larger one. "
        "Weight them by their sizes."
    )
    hints = {unchanged: stale, old: continued, exponential: moving, by_batch: means.mean(0)}
    expect(norm.running_mean, mean, f"the running mean{where}", hints, rtol=1e-3, atol=1e-4)
    sizes = torch.tensor([len(batch) for batch in batches])[:, None]
    within = torch.stack([b.var(0, correction=0) for b in batches])
    between = (
        "This averages the variances of the batches (as torch's update_bn does) and loses the variance BETWEEN the "
        "batches: the population's variance is the mean of their variances plus the variance of their means."
    )
    hints = {
        unchanged: stale_variance,
        old: continued_variance,
        exponential: moving_variance,
        between: variances.mean(0),
        f"{between} ": within.mean(0),
        f"{between}  ": (sizes * within).sum(0) / sizes.sum(),
        "This is the variance of the batches' means alone: add the mean of their variances.": means.var(0),
    }
    if is_close(norm.running_var, torch.cat(batches).var(0)):
        return  # divided by one less than the number of samples: as BatchNorm remembers
    expect(norm.running_var, pooled, f"the running variance{where}", hints, rtol=1e-3, atol=1e-4)


@recalibrate.case("the first layer: the statistics of all samples")
def recalibrated_first(answer):
    model, batches = stale_model()
    answer(model, batches)
    compare_population(model[0], batches, "")


@recalibrate.case("a smaller last batch counts less")
def recalibrated_unequal(answer):
    model, batches = stale_model(last=2)
    answer(model, batches)
    compare_population(model[0], batches, "")


@recalibrate.case("a later layer: dropout stays off, batch after batch")
def recalibrated_later(answer):
    model, batches = stale_model()
    sizes, dropped = [], []
    model[0].register_forward_pre_hook(lambda part, inputs: sizes.append(len(inputs[0])))
    model[2].register_forward_pre_hook(lambda part, inputs: dropped.append(part.training))
    answer(model, batches)
    require(
        not any(dropped),
        "dropout was on while the batches went through the model.",
        "Only the BatchNorm layers belong in training mode: model.train() turns dropout on as well, "
        "and evaluation runs without it.",
    )
    hint = "Run the batches one after another: in practice they do not all fit into memory at once."
    require(max(sizes, default=0) <= 6, f"{max(sizes, default=0)} samples went through the model at once.", hint)
    with torch.no_grad():
        inputs = [model[1](F.batch_norm(b, None, None, model[0].weight, model[0].bias, training=True)) for b in batches]
    compare_population(model[3], inputs, " of the second BatchNorm")


@recalibrate.case("modes, momentum and parameters are left as they were")
def recalibrated_rest(answer):
    model, batches = stale_model()
    model[1].train()
    parameters = copy.deepcopy(list(model.parameters()))
    answer(model, batches)
    moved = bool((model[0].running_mean != 7.0).any())
    require(moved, "nothing was recalibrated.", "Run the batches in training mode.")
    require(
        [part.training for part in model.modules()] == [False, False, True, False, False],
        "a module was left in a different mode from the one it was in.",
        "Remember each module's own `training` flag, and put it back.",
    )
    require(
        (model[0].momentum, model[3].momentum) == (0.1, 0.2),
        f"the momentum values are now {model[0].momentum} and {model[3].momentum}; they were 0.1 and 0.2.",
        "Put each layer's own momentum back.",
    )
    same = all(map(torch.equal, parameters, model.parameters()))
    require(same and all(p.grad is None for p in model.parameters()), "parameters or gradients have changed.")
    require(not model[0].running_mean.requires_grad, "the statistics carry a graph.", "Run under torch.no_grad().")
