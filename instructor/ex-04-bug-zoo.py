# %% [markdown]
# # Exercises 4: The bug zoo
#
# These exercises belong to chapters 6, 10 and 11. Every creature below has a bug that real courses and code bases have
# shipped. For each of them:
#
# 1. **Find it.** Read the symptom, read the code, run the check to see what fails.
# 2. **Explain it.** Write one or two sentences: what is wrong, and in what situation would you notice?
# 3. **Mend it.** Change as little as you can. The check wants everything right, not just the line you looked at.

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
# It trains. It evaluates, as long as nobody asks for a gradient. Then somebody makes a saliency map (the gradient of a
# score with respect to the image) of a trained model in evaluation mode, and the map changes with the other images in
# the batch.
#
# <details><summary>Hint</summary>
# Who decides which statistics are used: the mode of the layer, or something that only happens to agree with it most of
# the time?
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
class Sleepless(nn.Module):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x):
        # BEGIN SOLUTION NO PROMPT
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
            with torch.no_grad():
                unbiased = var * x[:, 0].numel() / (x[:, 0].numel() - 1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(unbiased, self.momentum)
        else:
            mean, var = self.running_mean, self.running_var
        # END SOLUTION
        """ # BEGIN PROMPT
        if torch.is_grad_enabled():
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
            with torch.no_grad():
                unbiased = var * x[:, 0].numel() / (x[:, 0].numel() - 1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(unbiased, self.momentum)
        else:
            mean, var = self.running_mean, self.running_var
        """  # END PROMPT
        x_hat = (x - mean[:, None, None]) / (var[:, None, None] + self.eps).sqrt()
        return self.weight[:, None, None] * x_hat + self.bias[:, None, None]


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("zoo-mode", Sleepless)

# %% [markdown]
# *What is wrong, and when would you notice? Your explanation:*

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def half_frozen(Sleepless):
    import torch

    from bncourse.exercises.compare import expect, sample

    layer = Sleepless(2).eval()
    x = sample(4, 2, 3, 3, seed=70) + 3
    with torch.enable_grad():
        expect(layer(x), x / (1 + 1e-5) ** 0.5, "the output of a new layer in evaluation")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: zoo-buffers
# all_or_nothing: true

# %% [markdown]
# You train it, save a checkpoint, load it tomorrow, and the accuracy is that of guessing. On a GPU it does not even
# start: "expected all tensors to be on the same device".
#
# <details><summary>Hint</summary>
# What does <code>state_dict()</code> list, and what does it leave out?
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
class Amnesiac(nn.Module):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        # BEGIN SOLUTION NO PROMPT
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        # END SOLUTION
        """ # BEGIN PROMPT
        self.running_mean = torch.zeros(num_features)
        self.running_var = torch.ones(num_features)
        """  # END PROMPT

    def forward(self, x):
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
            with torch.no_grad():
                unbiased = var * x[:, 0].numel() / (x[:, 0].numel() - 1)
                self.running_mean += self.momentum * (mean - self.running_mean)
                self.running_var += self.momentum * (unbiased - self.running_var)
        else:
            mean, var = self.running_mean, self.running_var
        x_hat = (x - mean[:, None, None]) / (var[:, None, None] + self.eps).sqrt()
        return self.weight[:, None, None] * x_hat + self.bias[:, None, None]


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("zoo-buffers", Amnesiac)

# %% [markdown]
# *What is wrong, and when would you notice? Your explanation:*

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def names_in_the_state(Amnesiac):
    from bncourse.exercises.compare import require

    names = {name for name, _ in Amnesiac(2).named_buffers()}
    require({"running_mean", "running_var"} <= names, "the running statistics are no buffers")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: zoo-variance
# all_or_nothing: true

# %% [markdown]
# It agrees with torch to two digits, and the smaller the batch, the worse. There are **two** bugs: one in what it
# normalizes with, one in what it remembers.
#
# <details><summary>Hint</summary>
# BatchNorm normalizes with the biased variance (divided by n) and remembers the unbiased one (divided by n - 1).
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
class Miscounting(nn.Module):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x):
        if self.training:
            # BEGIN SOLUTION NO PROMPT
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
            with torch.no_grad():
                unbiased = var * x[:, 0].numel() / (x[:, 0].numel() - 1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(unbiased, self.momentum)
            # END SOLUTION
            """ # BEGIN PROMPT
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(x.var((0, 2, 3), correction=0), self.momentum)
            """  # END PROMPT
        else:
            mean, var = self.running_mean, self.running_var
        x_hat = (x - mean[:, None, None]) / (var[:, None, None] + self.eps).sqrt()
        return self.weight[:, None, None] * x_hat + self.bias[:, None, None]


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("zoo-variance", Miscounting)

# %% [markdown]
# *What is wrong, and when would you notice? Your explanation:*

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def a_tiny_batch(Miscounting):
    import torch
    from torch import nn

    from bncourse.exercises.compare import expect

    layer, twin, x = Miscounting(1), nn.BatchNorm2d(1), torch.tensor([[[[1.0]]], [[[4.0]]]])
    expect(layer(x), twin(x), "the output for two values")
    expect(layer.running_var, twin.running_var, "running_var after two values")


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
# <code>a.lerp_(b, w)</code> gives (1 - w) · a + w · b. How much of its past does the layer keep?
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
class Forgetful(nn.Module):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x):
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
            # BEGIN SOLUTION NO PROMPT
            with torch.no_grad():
                unbiased = var * x[:, 0].numel() / (x[:, 0].numel() - 1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(unbiased, self.momentum)
            # END SOLUTION
            """ # BEGIN PROMPT
            with torch.no_grad():
                unbiased = var * x[:, 0].numel() / (x[:, 0].numel() - 1)
                self.running_mean.lerp_(mean, 1 - self.momentum)
                self.running_var.lerp_(unbiased, 1 - self.momentum)
            """  # END PROMPT
        else:
            mean, var = self.running_mean, self.running_var
        x_hat = (x - mean[:, None, None]) / (var[:, None, None] + self.eps).sqrt()
        return self.weight[:, None, None] * x_hat + self.bias[:, None, None]


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("zoo-momentum", Forgetful)

# %% [markdown]
# *What is wrong, and when would you notice? Your explanation:*

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
    expect(layer.running_mean, twin.running_mean, "running_mean")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: zoo-graph
# all_or_nothing: true

# %% [markdown]
# Every step is a little slower than the one before and takes a little more memory. <code>copy.deepcopy(model)</code>
# fails with "Only Tensors created explicitly by the user support the deepcopy protocol".
#
# <details><summary>Hint</summary>
# Look at <code>layer.running_mean.grad_fn</code> after a training step. What does it hold on to?
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
class Clinging(nn.Module):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x):
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
            # BEGIN SOLUTION NO PROMPT
            with torch.no_grad():
                unbiased = var * x[:, 0].numel() / (x[:, 0].numel() - 1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(unbiased, self.momentum)
            # END SOLUTION
            """ # BEGIN PROMPT
            unbiased = var * x[:, 0].numel() / (x[:, 0].numel() - 1)
            self.running_mean = (1 - self.momentum) * self.running_mean + self.momentum * mean
            self.running_var = (1 - self.momentum) * self.running_var + self.momentum * unbiased
            """  # END PROMPT
        else:
            mean, var = self.running_mean, self.running_var
        x_hat = (x - mean[:, None, None]) / (var[:, None, None] + self.eps).sqrt()
        return self.weight[:, None, None] * x_hat + self.bias[:, None, None]


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("zoo-graph", Clinging)

# %% [markdown]
# *What is wrong, and when would you notice? Your explanation:*

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def buffers_keep_their_identity(Clinging):
    from bncourse.exercises.compare import require, sample

    layer = Clinging(2)
    layer(sample(3, 2, 2, 2).requires_grad_())
    require(layer.running_var.grad_fn is None and layer.running_mean.grad_fn is None, "the buffers carry a graph")
    require(bool((layer.running_mean != 0).any()), "the running mean never changes")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: zoo-cancellation
# all_or_nothing: true

# %% [markdown]
# It passes every test on standardized data. Then somebody feeds it raw sensor values near 10,000, and the loss is NaN.
#
# <details><summary>Hint</summary>
# How many digits does a float32 have, and how many of them do the two terms of <code>E[x²] - E[x]²</code> share?
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
class Dizzy(nn.Module):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x):
        if self.training:
            # BEGIN SOLUTION NO PROMPT
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
            # END SOLUTION
            """ # BEGIN PROMPT
            mean, var = x.mean((0, 2, 3)), x.square().mean((0, 2, 3)) - x.mean((0, 2, 3)).square()
            """  # END PROMPT
            with torch.no_grad():
                unbiased = var * x[:, 0].numel() / (x[:, 0].numel() - 1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(unbiased, self.momentum)
        else:
            mean, var = self.running_mean, self.running_var
        x_hat = (x - mean[:, None, None]) / (var[:, None, None] + self.eps).sqrt()
        return self.weight[:, None, None] * x_hat + self.bias[:, None, None]


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("zoo-cancellation", Dizzy)

# %% [markdown]
# *What is wrong, and when would you notice? Your explanation:*

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def a_larger_offset(Dizzy):
    from torch import nn

    from bncourse.exercises.compare import expect, sample

    x = sample(8, 2, 8, 8, seed=75) + 3e4
    expect(Dizzy(2)(x), nn.BatchNorm2d(2).double()(x.double()), "the output", rtol=0.05, atol=0.05)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: zoo-detached
# all_or_nothing: true

# %% [markdown]
# Its outputs are right to the last digit, in training and in evaluation. Its networks train, but worse than they
# should.
#
# <details><summary>Hint</summary>
# The mean and the variance are functions of x. What becomes of their part of the gradient?
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
class Halfhearted(nn.Module):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x):
        if self.training:
            # BEGIN SOLUTION NO PROMPT
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
            with torch.no_grad():
                unbiased = var * x[:, 0].numel() / (x[:, 0].numel() - 1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(unbiased, self.momentum)
            # END SOLUTION
            """ # BEGIN PROMPT
            with torch.no_grad():
                mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
                unbiased = var * x[:, 0].numel() / (x[:, 0].numel() - 1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(unbiased, self.momentum)
            """  # END PROMPT
        else:
            mean, var = self.running_mean, self.running_var
        x_hat = (x - mean[:, None, None]) / (var[:, None, None] + self.eps).sqrt()
        return self.weight[:, None, None] * x_hat + self.bias[:, None, None]


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("zoo-detached", Halfhearted)

# %% [markdown]
# *What is wrong, and when would you notice? Your explanation:*

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def the_gradient_sums_to_zero(Halfhearted):
    import torch

    from bncourse.exercises.compare import expect, sample

    x = sample(4, 2, 3, 3, seed=76).requires_grad_()
    layer = Halfhearted(2)
    (dx,) = torch.autograd.grad(layer(x), x, sample(4, 2, 3, 3, seed=77))
    expect(dx.sum((0, 2, 3)), torch.zeros(2), "the sum of the gradient of x over a channel", atol=1e-4)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: zoo-bias

# %% [markdown]
# This block is meant to leave out the bias of the convolution whenever BatchNorm follows. `norm` is what makes the
# norm: usually a class, sometimes a function. Count the parameters and see.
#
# <details><summary>Hint</summary>
# What is the type of <code>nn.BatchNorm2d</code>, without the brackets? Derived classes count too.
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
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)
    return nn.Sequential(convolution, norm(out_channels), nn.ReLU())


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("zoo-bias", conv_norm_relu)

# %% [markdown]
# *What is wrong, and when would you notice? Your explanation:*

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def a_norm_that_is_no_batch_norm(conv_norm_relu):
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

# %% [markdown]
# A residual block adds its input to what its branch computes, so that signal and gradient can pass unchanged. In this
# one they cannot.
#
# <details><summary>Hint</summary>
# Set the weight and bias of the last BatchNorm to zero. What should the block then return, and what does it return?
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
class ResidualBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

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

# %% [markdown]
# *What is wrong, and when would you notice? Your explanation:*

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
# This one is no layer but a check: it should tell whether the gradient of a BatchNorm is right. Many a wrong
# gradient has passed it. **Mend it**, so that it accepts a right BatchNorm and rejects a wrong one.
#
# `batch_norm` is a function of one tensor (N, C), in training mode, with weight 1, bias 0 and eps 1e-5.
#
# <details><summary>Hint</summary>
# What does BatchNorm make of two samples, whatever they are? What is the sum of its outputs? If neither depends on the
# input, what gradient do you expect, and what do you learn from getting it?
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
def gradient_is_right(batch_norm):
    """Whether autograd through batch_norm gives the right gradient: True or False."""
    # BEGIN SOLUTION NO PROMPT
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    dy = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    (got,) = torch.autograd.grad(batch_norm(x), x, dy)
    (expected,) = torch.autograd.grad(F.batch_norm(x, None, None, training=True), x, dy)
    return torch.allclose(got, expected, rtol=1e-6, atol=1e-9)
    # END SOLUTION
    """ # BEGIN PROMPT
    x = torch.randn(2, 3, requires_grad=True)
    (got,) = torch.autograd.grad(batch_norm(x).sum(), x)
    (expected,) = torch.autograd.grad(F.batch_norm(x, None, None, training=True).sum(), x)
    return torch.allclose(got, expected, atol=1e-2)
    """  # END PROMPT


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("zoo-gradient-check", gradient_is_right)

# %% [markdown]
# *What is wrong, and when would you notice? Your explanation:*

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

    require(gradient_is_right(right_batch_norm) is True, "a right BatchNorm is rejected")
    require(gradient_is_right(slightly_wrong) is False, "a gradient that is 10% too large passes")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: layer

# %% [markdown]
# You have met every way to get it wrong. **Write** a BatchNorm for images `(N, C, H, W)` from nothing but tensors, with
# the parameters `weight` and `bias` and the buffers `running_mean` and `running_var`. It must behave as
# `nn.BatchNorm2d` does in every case of the check.
#
# <details><summary>Hint</summary>
# The five steps: batch statistics or running ones, by mode; the biased variance to normalize, the unbiased one to
# remember; the update in place and without a graph; standardize; scale and shift by channel.
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
# Which of the zoo's creatures was the first thing you wrote?

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def a_network_trains_as_with_torch(BatchNorm):
    import torch
    from torch import nn

    from bncourse.exercises.compare import expect, sample

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
