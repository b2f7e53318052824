# %% [markdown]
# # Exercises 4: The bug zoo
#
# These exercises go with chapters 6, 10 and 11. Every creature below has a bug of a kind that gets shipped. For each of
# them:
#
# 1. **Find it.** Read the symptom and the code, and run the check to see what fails.
# 2. **Fix it.** Change as little as you can. The check wants the same creature, fixed in place and correct in every
#    respect.
# 3. **Explain it.** Write one or two sentences: what is wrong, and in what situation would you notice? Your explanation
#    is worth half of the points, and a person reads it.

# %%
import torch
from torch import nn
from torch.nn import functional as F

from bncourse.exercises import check

# %% [raw]
# # BEGIN QUESTION
# name: zoo-mode
# all_or_nothing: true

# %% [markdown]
# It trains, and it evaluates correctly until somebody asks for a gradient. They compute a saliency map (the gradient of
# a score with respect to the image) for a trained model in evaluation mode, and the map depends on the other images in
# the batch. The images have their channels **last**: (N, H, W, C).
#
# <details><summary>Hint</summary>
# What decides which statistics are used: the mode of the layer, or something that only happens to agree with it most of
# the time?
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
Sleepless = {
    "if torch.is_grad_enabled():": "if self.training:",
}


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("zoo-mode", Sleepless)

# %% [raw]
# # EXPLANATION
# rubric: that torch.is_grad_enabled() decides which statistics are used, not self.training (1/2); a situation in which
#   the two differ: gradients in evaluation (saliency, attacks, fine-tuning of other layers), or training statistics
#   under no_grad (1/2)
# good: forward asks whether gradients are recorded, not whether the layer is in training. With gradients on in eval
#   mode, as for a saliency map, each image is normalized by its batch, and the running statistics move.
# weak: It used the wrong if.

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def half_frozen(Sleepless):
    import torch

    from bncourse.exercises.compare import expect, sample

    layer = Sleepless(2).eval()
    x = sample(4, 3, 3, 2, seed=70) + 3
    with torch.enable_grad():
        for image in (x, x.clone().requires_grad_()):
            expect(layer(image), x / (1 + 1e-5) ** 0.5, "the output of a new layer in evaluation")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: zoo-buffers
# all_or_nothing: true

# %% [markdown]
# It standardizes features with the mean and variance of everything it has seen. You train with it, save a checkpoint
# and load it the next day, and the accuracy is no better than guessing. On a GPU it does not even start: "expected all
# tensors to be on the same device".
#
# <details><summary>Hint</summary>
# What does <code>state_dict()</code> list, and what does it leave out?
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
Amnesiac = {
    "self.count = torch.zeros(())": 'self.register_buffer("count", torch.zeros(()))',
    "self.mean = torch.zeros(features)": 'self.register_buffer("mean", torch.zeros(features))',
    "self.var = torch.ones(features)": 'self.register_buffer("var", torch.ones(features))',
}


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("zoo-buffers", Amnesiac)

# %% [raw]
# # EXPLANATION
# rubric: that plain tensors are neither in state_dict() nor moved by .to() (1/2); when you would notice: after loading
#   a checkpoint, or on another device or type (1/2)
# good: The three statistics are plain attributes, so state_dict() leaves them out and .to() does not move them. A
#   loaded model starts again from mean 0 and variance 1 while the rest of it is trained, and on a GPU it raises an
#   error.
# weak: register_buffer was missing.

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def names_in_the_state(Amnesiac):
    from bncourse.exercises.compare import require

    names = {name for name, _ in Amnesiac(2).named_buffers()}
    require({"count", "mean", "var"} <= names, "the statistics are not buffers")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: zoo-variance
# all_or_nothing: true

# %% [markdown]
# It normalizes sequences, (N, C, L), and agrees with torch to two digits, and to fewer when the batch is small. There
# are **two** bugs: one in what it normalizes with, and one in what it remembers.
#
# <details><summary>Hint</summary>
# BatchNorm normalizes with the biased variance, divided by n, and remembers the unbiased one, divided by n - 1.
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
Miscounting = {
    "var = squares / (n - 1)": "var = squares / n",
    "step = squares / n -": "step = squares / (n - 1) -",
}


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("zoo-variance", Miscounting)

# %% [raw]
# # EXPLANATION
# rubric: both divisors and where each belongs: n to normalize, n - 1 to remember (1/2); when you would notice: with
#   small batches, where n / (n - 1) is far from 1, as a gap between training and evaluation or between this layer and
#   torch's (1/2)
# good: It divides by n - 1 where it normalizes and by n where it remembers: exactly the wrong way round. With 1,000
#   values nobody would see it; with 4 values per channel the outputs are 13% too small.
# weak: The variance was wrong, I swapped the numbers.

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def three_values(Miscounting):
    import torch
    from torch import nn

    from bncourse.exercises.compare import expect

    layer, twin, x = Miscounting(1), nn.BatchNorm1d(1), torch.tensor([[[1.0, 4.0, 7.0]]])
    expect(layer(x), twin(x), "the output for three values")
    expect(layer.running_var.flatten(), twin.running_var, "running_var after three values")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: zoo-momentum
# all_or_nothing: true

# %% [markdown]
# Its training curve is perfect. Its validation accuracy jumps up and down from epoch to epoch, and depends on which
# batch came last.
#
# <details><summary>Hint</summary>
# After one step, how much of the old running mean is left? How much is left in torch, with momentum 0.1?
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
Forgetful = {
    "old, new = self.momentum, 1 - self.momentum": "old, new = 1 - self.momentum, self.momentum",
}


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("zoo-momentum", Forgetful)

# %% [raw]
# # EXPLANATION
# rubric: that the momentum weights the old value where torch weights the new one, so that 90% of the statistics come
#   from the last batch (1/2); when you would notice: only in evaluation, which then depends on the last batch (1/2)
# good: The momentum is used the wrong way round (the way Keras defines it), so each update takes 0.9 of the new batch.
#   Training does not use the running statistics, so only evaluation shows it: the result changes with the last batch.
# weak: momentum and 1 - momentum.

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def another_momentum(Forgetful):
    from torch import nn

    from bncourse.exercises.compare import expect, sample

    layer, twin = Forgetful(2, momentum=0.3), nn.BatchNorm2d(2, momentum=0.3)
    for step in range(4):
        x = sample(3, 2, 2, 2, seed=71 + step) + step
        layer(x), twin(x)
    expect(layer.running_mean.flatten(), twin.running_mean, "running_mean")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: zoo-graph
# all_or_nothing: true

# %% [markdown]
# It is made for a recurrent network and keeps separate running statistics for each time step. It trains, though each
# training step takes a little more memory than the one before. But calling `copy.deepcopy` on the trained network
# raises an error, and so does computing a saliency map in evaluation mode: "Trying to backward through the graph a
# second time".
#
# <details><summary>Hint</summary>
# Look at <code>layer.running_mean.grad_fn</code> after a training step. What does it hold on to?
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
Clinging = {
    "self.running_mean[step] += self.momentum * mean": "self.running_mean[step] += self.momentum * mean.detach()",
    "self.running_var[step] += self.momentum * unbiased": (
        "self.running_var[step] += self.momentum * unbiased.detach()"
    ),
}


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("zoo-graph", Clinging)

# %% [raw]
# # EXPLANATION
# rubric: that the update of the running statistics is recorded by autograd, so that each step's graph is attached to
#   all earlier ones (1/2); when you would notice: memory that grows, a deepcopy that fails, or a backward pass in
#   evaluation mode that raises an error (1/2)
# good: The running averages are computed with gradients on, so they hold the graph of every batch so far, and memory
#   grows. In evaluation the output depends on them, so a backward pass tries to go through those batches again and
#   raises an error.
# weak: no_grad was missing.

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def buffers_have_no_graph(Clinging):
    from bncourse.exercises.compare import require, sample

    layer = Clinging(2, 3)
    layer(sample(3, 2).requires_grad_(), 0)
    require(layer.running_var.grad_fn is None and layer.running_mean.grad_fn is None, "the buffers carry a graph")
    require(bool((layer.running_mean[0] != 0).any()), "the running mean never changes")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: zoo-cancellation
# all_or_nothing: true

# %% [markdown]
# A GroupNorm. It passes every test on standardized data. Then somebody feeds it raw sensor values near 10,000, and
# the loss is NaN.
#
# <details><summary>Hint</summary>
# How many digits does a float32 have, and how many of them do the two terms of <code>E[x²] - E[x]²</code> share?
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
Dizzy = {
    "squares = grouped.square().mean(2, keepdim=True)": "squares = (grouped - mean).square()",
    "var = squares - mean.square()": "var = squares.mean(2, keepdim=True)",
}


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("zoo-cancellation", Dizzy)

# %% [raw]
# # EXPLANATION
# rubric: that two nearly equal large numbers are subtracted and float32 has 7 digits, so that the variance is mostly
#   rounding error and can even be negative (1/2); when you would notice: when the mean is large compared with the
#   spread, as in raw data or late features (1/2)
# good: The mean of squares and the square of the mean are both about 1e8 and differ by 1, which is below float32's
#   precision there. The difference can be negative, and its root is NaN. Standardized data never show this.
# weak: The formula is numerically unstable.

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def a_larger_offset(Dizzy):
    from torch.nn import functional as F

    from bncourse.exercises.compare import expect, sample

    x = sample(2, 4, 8, 8, seed=75) + 3e4
    expect(Dizzy(2, 4)(x), F.group_norm(x.double(), 2), "the output", rtol=0.05, atol=0.05)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: zoo-detached
# all_or_nothing: true

# %% [markdown]
# A LayerNorm. Its outputs are right to the last digit. Networks that use it train, but not as well as they should.
#
# <details><summary>Hint</summary>
# The mean and the variance are functions of x. What happens to their part of the gradient?
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
Halfhearted = {
    "        with torch.no_grad():\n": "",
    "            mean = ": "        mean = ",
    "            var = ": "        var = ",
}


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("zoo-detached", Halfhearted)

# %% [raw]
# # EXPLANATION
# rubric: that mean and variance are held constant, so that the gradient lacks the paths through them (1/2); when you
#   would notice: not from any output, but in training, or when you check the gradient (1/2)
# good: Mean and variance are computed under no_grad, so backward treats them as constants: the gradient lacks the
#   two terms that remove its mean and its part along x-hat. Outputs are right, so only gradcheck or slow training
#   shows it.
# weak: The gradient is wrong because of no_grad.

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def the_gradient_sums_to_zero(Halfhearted):
    import torch

    from bncourse.exercises.compare import expect, sample

    x = sample(4, 2, 6, seed=76).requires_grad_()
    (dx,) = torch.autograd.grad(Halfhearted(6)(x), x, sample(4, 2, 6, seed=77))
    expect(dx.sum(-1), torch.zeros(4, 2), "the sum of the gradient of x over a token", atol=1e-4)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: zoo-bias
# all_or_nothing: true

# %% [markdown]
# This block is meant to leave out the convolution's bias whenever BatchNorm follows. It calls `norm` to make the
# normalization layer; `norm` is usually a class and sometimes a function. Count the parameters and see.
#
# <details><summary>Hint</summary>
# What is the type of <code>nn.BatchNorm2d</code>, without the brackets? Classes derived from it count too.
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
def conv_norm_relu(norm, in_channels, out_channels):
    # BEGIN SOLUTION NO PROMPT
    bias = not (isinstance(norm, type) and issubclass(norm, nn.BatchNorm2d))
    # END SOLUTION
    """ # BEGIN PROMPT
    bias = not isinstance(norm, nn.BatchNorm2d)
    """  # END PROMPT
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)
    return nn.Sequential(conv, norm(out_channels), nn.ReLU())


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("zoo-bias", conv_norm_relu)

# %% [raw]
# # EXPLANATION
# rubric: that norm is a class, so that isinstance is always False and the bias stays (1/2); when you would notice: from
#   the number of parameters, or from a bias whose gradient is zero; not from any output (1/2)
# good: isinstance asks about objects, and norm is the class itself, so isinstance is never true and every convolution
#   keeps its bias. The outputs are the same; only the parameter count, and a bias whose gradient is zero, give it away.
# weak: It should be issubclass.

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def a_norm_that_is_not_a_batch_norm(conv_norm_relu):
    from torch import nn

    from bncourse.exercises.compare import require

    require(conv_norm_relu(nn.InstanceNorm2d, 2, 4)[0].bias is not None, "the bias before an InstanceNorm is gone")
    require(conv_norm_relu(nn.BatchNorm2d, 2, 4)[0].bias is None, "the bias before a BatchNorm is still there")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: zoo-residual
# all_or_nothing: true

# %% [markdown]
# A residual block adds its input to what its branch computes, so that the signal and the gradient can pass through
# unchanged. In this one they cannot.
#
# <details><summary>Hint</summary>
# Set the weight and bias of the last BatchNorm to zero. What should the block then return, and what does it return?
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
class ResidualBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x):
        branch = F.relu(self.norm1(self.conv1(x)))
        # BEGIN SOLUTION NO PROMPT
        return F.relu(x + self.norm2(self.conv2(branch)))
        # END SOLUTION
        """ # BEGIN PROMPT
        return F.relu(self.norm2(x + self.conv2(branch)))
        """  # END PROMPT


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("zoo-residual", ResidualBlock)

# %% [raw]
# # EXPLANATION
# rubric: that the norm comes after the addition and so acts on the shortcut, which is no longer an identity (1/2); when
#   you would notice: in deep networks, where the signal or the gradient fades, or with the norm's weight set to zero
#   (1/2)
# good: norm2 comes after the sum, so even the shortcut is normalized, and with weight zero the block returns 0 instead
#   of relu(x). One block trains; in a deep stack the gradient no longer has an identity to pass through.
# weak: The order is wrong.

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def a_stack_of_blocks_at_zero(ResidualBlock):
    from torch import nn

    from bncourse.exercises.compare import expect, sample

    blocks = nn.Sequential(ResidualBlock(3), ResidualBlock(3))
    for block in blocks:
        nn.init.zeros_(block.norm2.weight)
    x = sample(2, 3, 4, 4, seed=78)
    expect(blocks(x), x.relu(), "the output of two blocks")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: zoo-gradient-check
# all_or_nothing: true

# %% [markdown]
# This one is not a layer but a check that is supposed to say whether the gradient of a BatchNorm is right. Many wrong
# gradients have passed it. **Fix it** so that it accepts a correct BatchNorm and rejects a wrong one.
#
# `batch_norm` is a function of one tensor, (N, C). It works in training mode, with weight 1, bias 0 and eps 1e-5.
#
# <details><summary>Hint</summary>
# What is the sum of BatchNorm's outputs, and does it depend on the input? What does BatchNorm turn two samples into?
# What gradient do you expect then, and what have you learned if you get it?
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
def gradient_is_right(batch_norm):
    """Whether autograd through batch_norm gives the right gradient:
    True or False.
    """
    # BEGIN SOLUTION NO PROMPT
    generator = torch.Generator().manual_seed(0)
    x, dy = torch.randn(2, 8, 3, generator=generator, dtype=torch.float64)
    x.requires_grad_()
    (got,) = torch.autograd.grad(batch_norm(x), x, dy)
    normalized = F.batch_norm(x, None, None, training=True)
    (expected,) = torch.autograd.grad(normalized, x, dy)
    return torch.allclose(got, expected, rtol=1e-6, atol=1e-9)
    # END SOLUTION
    """ # BEGIN PROMPT
    x = torch.randn(2, 3, requires_grad=True)
    (got,) = torch.autograd.grad(batch_norm(x).sum(), x)
    normalized = F.batch_norm(x, None, None, training=True)
    (expected,) = torch.autograd.grad(normalized.sum(), x)
    return torch.allclose(got, expected, atol=1e-2)
    """  # END PROMPT


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("zoo-gradient-check", gradient_is_right)

# %% [raw]
# # EXPLANATION
# rubric: any two of: the sum of the outputs does not depend on x; with two samples the outputs are +1 and -1 so that
#   the gradient is tiny; float32 and atol=1e-2 accept any tiny gradient (1/2); what passed because of it (1/2)
# good: It compares the gradient of a sum that is constant, on a batch of two whose outputs are always +1 and -1: both
#   gradients are zero, and so is a wrong one, within 0.01. A layer with no gradient at all passes.
# weak: The tolerance was too large.

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def a_gradient_ten_percent_too_large(gradient_is_right):
    from bncourse.exercises.bug_zoo import right_batch_norm
    from bncourse.exercises.compare import require

    def slightly_wrong(x):
        y = right_batch_norm(x)
        return 1.1 * y - 0.1 * y.detach()

    require(gradient_is_right(right_batch_norm) is True, "a correct BatchNorm is rejected")
    require(gradient_is_right(slightly_wrong) is False, "a gradient that is 10% too large passes")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: layer

# %% [markdown]
# You have now met ten ways to get it wrong. **Write** a BatchNorm for images `(N, C, H, W)` from nothing but tensors,
# with the parameters `weight` and `bias` and the buffers `running_mean` and `running_var`. It must behave like
# `nn.BatchNorm2d` in every case of the check.
#
# <details><summary>Hint</summary>
# There are five steps: choose the batch's statistics or the running ones, depending on the mode; use the biased
# variance to normalize and the unbiased one to remember; update in place and without a graph; standardize; scale and
# shift each channel.
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
class BatchNorm(nn.Module):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        """Parameters and buffers for num_features channels."""
        super().__init__()
        # BEGIN SOLUTION
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        # END SOLUTION

    def forward(self, x):
        """From (N, C, H, W) to (N, C, H, W)."""
        # BEGIN SOLUTION
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
            with torch.no_grad():
                unbiased = var * x[:, 0].numel() / (x[:, 0].numel() - 1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(unbiased, self.momentum)
        else:
            mean, var = self.running_mean, self.running_var
        x_hat = (x - mean[:, None, None]) / (var[:, None, None] + self.eps).sqrt()
        return self.weight[:, None, None] * x_hat + self.bias[:, None, None]
        # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("layer", BatchNorm)

# %% [markdown]
# Which of the zoo's creatures did your first attempt resemble?

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def a_network_trains_as_with_torch(BatchNorm):
    import torch
    from torch import nn

    from bncourse.exercises.bug_zoo import own_work
    from bncourse.exercises.compare import expect, sample

    own_work(BatchNorm(2), sample(4, 2, 3, 3))
    x, target = sample(8, 2, 4, 4, seed=80), sample(8, 2, 4, 4, seed=81)
    layers = [BatchNorm(2), nn.BatchNorm2d(2)]
    for layer in layers:
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        for _ in range(10):
            (layer(x) - target).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    expect(layers[0].weight, layers[1].weight, "the weight after ten steps")
    expect(layers[0].eval()(x), layers[1].eval()(x), "the output in evaluation after ten steps")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION
