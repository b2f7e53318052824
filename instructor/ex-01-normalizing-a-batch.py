# %% [markdown]
# # Exercises 1: Normalizing a batch
#
# These exercises go with chapters 1 and 2. Write your answer where the code says `...` and run that cell, then run the
# cell below it, which checks your answer and tells you what is wrong. You can check as often as you like.

# %%
import torch

from bncourse.exercises import check

# %% [raw]
# # BEGIN QUESTION
# name: signal

# %% [markdown]
# A network has `depth` linear layers, with no biases and no activations. Every layer has $n$ inputs and $n$ outputs,
# and its weights are drawn from a normal distribution with mean 0 and standard deviation `gain` $/\sqrt{n}$. The input
# has standard deviation 1.
#
# **Predict** the standard deviation of the output. The check compares your formula with a measured network.
#
# <details><summary>Hint</summary>
# Each output is a sum of n independent products, so their variances add up: n times (gain² / n) times the variance of
# the input. Then do the same for the next layer.
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
def output_std(gain, depth):
    """The standard deviation of the last layer's output, a number."""
    # BEGIN SOLUTION
    return gain**depth
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("signal", output_std)

# %% [markdown]
# Look at your formula: for which gains does a signal survive 30 layers? That shows how carefully a deep network has to
# be initialized when nothing normalizes the signal along the way.

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def no_layer_changes_nothing(output_std):
    from bncourse.exercises.compare import expect

    expect(output_std(0.3, 0), 1.0, "the standard deviation after no layer")
    expect(output_std(1.0, 100), 1.0, "the standard deviation at gain 1")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: standardize

# %% [markdown]
# Every normalization layer in this course is one operation, *standardize over some axes*, followed by a scale and a
# shift. **Write** that operation without using `torch.nn`:
#
# $$\hat x = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}}$$
#
# where $\mu$ and $\sigma^2$ are the mean and the variance over the axes `dims`. The variance here is the biased one: it
# divides by the number of values.
#
# <details><summary>Hint</summary>
# <code>mean</code> and <code>var</code> take the axes, and <code>keepdim=True</code> keeps the reduced axes, so that
# the result still lines up with x. What does torch's <code>var</code> divide by if you do not tell it?
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
def standardize(x, dims, eps=1e-5):
    """Standardize a tensor of any shape over the axes `dims`, a tuple;
    the result has the shape of x.
    """
    # BEGIN SOLUTION
    centred = x - x.mean(dims, keepdim=True)
    variance = centred.square().mean(dims, keepdim=True)
    return centred / (variance + eps).sqrt()
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("standardize", standardize)

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def standardize_the_axes_of_layer_norm(standardize):
    from torch.nn import functional as F

    from bncourse.exercises.compare import expect, sample

    x = 3 * sample(4, 3, 5, 2, seed=40) + 1
    expect(standardize(x, (1, 2, 3), 1e-3), F.layer_norm(x, (3, 5, 2), eps=1e-3), "the result")


# %%
# HIDDEN
def the_input_stays_as_it_was(standardize):
    from bncourse.exercises.compare import expect, require, sample

    x = sample(5, 3, seed=41)
    before = x.clone()
    expect(standardize(x, (0,), 1e-5).mean(0), torch.zeros(3), "the mean of the result")
    require(torch.equal(x, before), "the input has changed")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: batch-norm

# %% [markdown]
# **Write** the forward pass of BatchNorm in training mode. It should take batches of features, `(N, C)`, and batches of
# images, `(N, C, H, W)`. Each of the C channels has one mean, one variance, one weight ($\gamma$) and one bias
# ($\beta$).
#
# Before you start, ask yourself: in a batch of 32 images of 8 x 8 pixels, how many numbers go into the mean of one
# channel?
#
# <details><summary>Hint 1</summary>
# Reduce over every axis except axis 1. Your <code>standardize</code> does the rest.
# </details>
# <details><summary>Hint 2</summary>
# weight has shape (C,), so in a product with (N, C, H, W) it lines up with the last axis. Reshape it to (1, C, 1, 1)
# for images and (1, C) for features.
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
def batch_norm(x, weight, bias, eps=1e-5):
    """BatchNorm of x, (N, C) or (N, C, H, W), with its own statistics;
    weight and bias are (C,).
    """
    # BEGIN SOLUTION
    axes = (0, *range(2, x.dim()))
    shape = (1, -1) + (1,) * (x.dim() - 2)
    return weight.reshape(shape) * standardize(x, axes, eps) + bias.reshape(shape)
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("batch-norm", batch_norm)

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def a_transposed_batch(batch_norm):
    from torch.nn import functional as F

    from bncourse.exercises.compare import expect, in_its_place, sample
    from bncourse.exercises.normalizing_a_batch import standardized

    x, ones, zeros = sample(5, 6, 4, 3, seed=42).transpose(1, 3), torch.ones(3), torch.zeros(3)
    with in_its_place(batch_norm, standardize=standardized):
        expect(batch_norm(x, ones, zeros, 1e-5), F.batch_norm(x, None, None, training=True), "the output")


# %%
# HIDDEN
def one_feature_of_a_wide_batch(batch_norm):
    from torch.nn import functional as F

    from bncourse.exercises.compare import expect, sample

    x, weight, bias = 10 * sample(300, 1, seed=43), sample(1, seed=44), sample(1, seed=45)
    from bncourse.exercises.compare import in_its_place
    from bncourse.exercises.normalizing_a_batch import standardized

    expected = F.batch_norm(x, None, None, weight, bias, training=True, eps=0.01)
    with in_its_place(batch_norm, standardize=standardized):
        expect(batch_norm(x, weight, bias, 0.01), expected, "the output")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: identity

# %% [markdown]
# Many texts say: "If $\gamma = \sigma$ and $\beta = \mu$, then BatchNorm is the identity." That is almost right.
# **Write** a function that takes a batch and finds the weight and the bias with which BatchNorm returns *exactly* that
# batch.
#
# <details><summary>Hint</summary>
# Write out x-hat in weight · x-hat + bias, and set the result equal to x. What exactly was x divided by?
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
def undo(x, eps=1e-5):
    """The weight and the bias, each (C,), that make BatchNorm of x,
    (N, C) or (N, C, H, W), return x.
    """
    # BEGIN SOLUTION
    axes = (0, *range(2, x.dim()))
    return (x.var(axes, correction=0) + eps).sqrt(), x.mean(axes)
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("identity", undo)

# %% [markdown]
# Will the same weight and bias leave the *next* batch unchanged? Try it, and explain what you see.

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def a_small_batch_with_a_large_eps(undo):
    from torch.nn import functional as F

    from bncourse.exercises.compare import expect

    x = torch.tensor([[0.0, 5.0], [1.0, 5.0], [2.0, 8.0]])
    weight, bias = map(torch.as_tensor, undo(x, 2.0))
    expect(F.batch_norm(x, None, None, weight, bias, training=True, eps=2.0), x, "the output")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION
