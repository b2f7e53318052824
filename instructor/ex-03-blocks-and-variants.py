# %% [markdown]
# # Exercises 3: Blocks, variants and small batches
#
# These exercises go with chapters 5 to 9. Write your answer where the code says `...` and run that cell, then run the
# cell below it, which checks your answer and tells you what is wrong. You can check as often as you like.

# %%
import math

from torch import nn
from torch.nn import functional as F

from bncourse.exercises import check

# %% [raw]
# # BEGIN QUESTION
# name: conv-block

# %% [markdown]
# **Write** the block that most convolutional networks are built from: a convolution, `nn.BatchNorm2d` and `nn.ReLU`, in
# the order used in the 2015 paper. The image must keep its height and width for every odd kernel size, and no parameter
# may be redundant.
#
# <details><summary>Hint</summary>
# Which parameter of the convolution does BatchNorm cancel, whatever its value?
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
def conv_block(in_channels, out_channels, kernel_size=3):
    """An nn.Sequential from (N, in_channels, H, W) to
    (N, out_channels, H, W).
    """
    # BEGIN SOLUTION
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("conv-block", conv_block)

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def a_large_kernel(conv_block):
    from bncourse.exercises.compare import require, sample

    block = conv_block(2, 4, 7)
    require(tuple(block(sample(2, 2, 8, 8)).shape) == (2, 4, 8, 8), "the image does not keep its size for kernel 7")
    require(sum(p.numel() for p in block.parameters()) == 2 * 4 * 49 + 8, "the number of parameters is wrong")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: norm-axes

# %% [markdown]
# A batch of images has four axes: 0 is N, 1 is C, 2 is H and 3 is W. **Predict** which of them `nn.BatchNorm2d(C)`,
# `nn.LayerNorm((C, H, W))`, `nn.InstanceNorm2d(C)` and `nn.GroupNorm(G, C)` average over. For GroupNorm, think of the
# batch after `x.reshape(N, G, C // G, H, W)`, which has five axes, numbered 0 to 4.
#
# Answer with tuples of axes. The check standardizes a batch over your axes and compares the result with that of torch's
# layer.
#
# <details><summary>Hint</summary>
# Ask yourself which numbers share a mean. In InstanceNorm, it is the numbers of one sample AND one channel.
# </details>

# %% [raw]
# # BEGIN SOLUTION

# %%
batch_axes = (0, 2, 3)  # SOLUTION
layer_axes = (1, 2, 3)  # SOLUTION
instance_axes = (2, 3)  # SOLUTION
group_axes = (2, 3, 4)  # SOLUTION

# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check(
    "norm-axes",
    {
        "batch": batch_axes,
        "layer": layer_axes,
        "instance": instance_axes,
        "group": group_axes,
    },
)

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def each_norm_has_its_own_axes(batch_axes, layer_axes, instance_axes, group_axes):
    from bncourse.exercises.compare import require

    given = [set(batch_axes), set(layer_axes), set(instance_axes), set(group_axes)]
    require(given == [{0, 2, 3}, {1, 2, 3}, {2, 3}, {2, 3, 4}], "the axes differ")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: group-norm

# %% [markdown]
# **Write** GroupNorm: the channels of each sample are split into `num_groups` groups of neighbouring channels, and each
# group is standardized with its own mean and variance. The weight and the bias have one value for each channel, not one
# for each group.
#
# <details><summary>Hint</summary>
# Reshape to (N, num_groups, -1), standardize over the last axis, and reshape back.
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
def group_norm(x, num_groups, weight, bias, eps=1e-5):
    """GroupNorm of x, (N, C, H, W); weight and bias are (C,), and
    num_groups divides C.
    """
    # BEGIN SOLUTION
    groups = x.reshape(len(x), num_groups, -1)
    centred = groups - groups.mean(2, keepdim=True)
    normalized = centred / (centred.square().mean(2, keepdim=True) + eps).sqrt()
    return weight[:, None, None] * normalized.reshape(x.shape) + bias[:, None, None]
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("group-norm", group_norm)

# %% [markdown]
# Which layer from this course do you get with one group, and which with as many groups as channels?

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def as_many_groups_as_channels(group_norm):
    from bncourse.exercises.blocks_and_variants import compare_group_norm
    from bncourse.exercises.compare import sample

    compare_group_norm(group_norm, sample(3, 4, 5, 5, seed=60), 4)


# %%
# HIDDEN
def one_group(group_norm):
    from bncourse.exercises.blocks_and_variants import compare_group_norm
    from bncourse.exercises.compare import sample

    compare_group_norm(group_norm, 5 + sample(3, 4, 2, 3, seed=61), 1)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: batch-of-two

# %% [markdown]
# In a batch of two, a feature has the values `a` and `b`. **Predict** what BatchNorm turns them into, in training mode
# with weight 1 and bias 0. Try 3 and 7 on paper first, then think of two values that are almost equal.
#
# <details><summary>Hint</summary>
# With d = (a - b) / 2, the mean is a - d. What is the biased variance?
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
def batch_of_two(a, b, eps=1e-5):
    """The two outputs, for a and for b, as a tuple of numbers."""
    # BEGIN SOLUTION
    half_gap = (a - b) / 2
    output = half_gap / math.sqrt(half_gap**2 + eps)
    return output, -output
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("batch-of-two", batch_of_two)

# %% [markdown]
# What can the next layer still find out about `a` and `b`? And what is the gradient of your output with respect to `a`
# when the two are far apart?

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def other_pairs(batch_of_two):
    from bncourse.exercises.blocks_and_variants import compare_two

    compare_two(batch_of_two, -1.0, -1.5, 0.1)
    compare_two(batch_of_two, 1e4, 1e4 + 1, 1e-5)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: accumulation
# all_or_nothing: true

# %% [markdown]
# Gradient accumulation adds up the gradients of `steps` micro-batches before each step of the optimizer. For a network
# *without* BatchNorm, this is the same as one step on the large batch that they form together. The loop below appears
# in many tutorials.
#
# **Find** out what it does when the last window is incomplete, and when the last micro-batch is smaller. Then **fix**
# it: every step must equal the step on one large batch made of all the samples in its window. The model must still see
# one micro-batch at a time, each with its own `backward()`, because that is what saves the memory. Leave no gradients
# behind for the next epoch to trip over.
#
# <details><summary>Hint 1</summary>
# Count it through for 5 micro-batches and steps = 3: how many times does the optimizer step, and what is left in the
# gradients?
# </details>
# <details><summary>Hint 2</summary>
# When you meet the first micro-batch of a window, you do not yet know how many samples the window will have. So take
# the SUM of the losses in each micro-batch (<code>reduction="sum"</code>), and divide the accumulated gradients by the
# number of samples just before the step.
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
def train_epoch(model, batches, optimizer, steps):
    """One epoch over a list of (inputs, labels) with cross entropy,
    `steps` micro-batches to each optimizer step.
    """
    # BEGIN SOLUTION NO PROMPT
    samples = 0
    for i, (inputs, labels) in enumerate(batches):
        F.cross_entropy(model(inputs), labels, reduction="sum").backward()
        samples += len(labels)
        if (i + 1) % steps == 0 or i + 1 == len(batches):
            for parameter in model.parameters():
                parameter.grad /= samples
            optimizer.step()
            optimizer.zero_grad()
            samples = 0
    # END SOLUTION
    """ # BEGIN PROMPT
    for i, (inputs, labels) in enumerate(batches):
        loss = F.cross_entropy(model(inputs), labels) / steps
        loss.backward()
        if (i + 1) % steps == 0:
            optimizer.step()
            optimizer.zero_grad()
    """  # END PROMPT


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("accumulation", train_epoch)

# %% [markdown]
# Your loop is now correct. Why does it still not help a network *with* BatchNorm?

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def windows_of_every_kind(train_epoch):
    from bncourse.exercises.blocks_and_variants import compare_epoch

    compare_epoch(train_epoch, (5, 3, 4, 4, 2), 2)
    compare_epoch(train_epoch, (4, 2), 5)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: dropout-shift

# %% [markdown]
# In training, dropout keeps each value with probability `keep` and divides it by `keep`; the other values become 0. In
# evaluation it does nothing. The mean is the same in both modes but the variance is not, and a BatchNorm that comes
# after the dropout has learned the variance it saw in training.
#
# **Predict** the ratio of the variance in evaluation to the variance in training, for inputs with the given mean and
# variance.
#
# <details><summary>Hint</summary>
# The variance is E[y²] - E[y]². With probability keep the square is (x / keep)², otherwise 0. What is E[y²] in terms of
# E[x²] = variance + mean²?
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
def variance_ratio(keep, mean, variance):
    """The variance of a dropout layer's output in evaluation, divided
    by the one in training.
    """
    # BEGIN SOLUTION
    return variance / ((variance + mean**2) / keep - mean**2)
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("dropout-shift", variance_ratio)

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def no_dropout_no_shift(variance_ratio):
    from bncourse.exercises.compare import expect

    expect(variance_ratio(1.0, 3.0, 2.0), 1.0, "the ratio without dropout")
    expect(variance_ratio(0.3, 0.0, 5.0), 0.3, "the ratio at zero mean")
    expect(variance_ratio(0.5, 1.0, 1.0), 1 / 3, "the ratio at mean 1 and variance 1")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION
