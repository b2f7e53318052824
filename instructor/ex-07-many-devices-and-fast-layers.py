# %% [markdown]
# # Exercises 7: Many devices and fast layers
#
# These exercises go with chapters 14 and 15. They need one process and no GPU. Write your answer where the code says
# `...` and run that cell, then run the cell below it, which checks your answer and tells you what is wrong. You can
# check as often as you like.

# %%

from bncourse.exercises import check

# %% [raw]
# # BEGIN QUESTION
# name: merge-statistics

# %% [markdown]
# Several devices have each measured their own part of a batch: the mean and the biased variance of each channel, and
# the number of values. **Write** a function that computes from these what SyncBatchNorm computes: the mean and the
# biased variance of the whole batch.
#
# <details><summary>Hint 1</summary>
# The mean of the variances is not the variance of the whole batch. What does it miss if the values on each device are
# constant, but differ from device to device?
# </details>
# <details><summary>Hint 2</summary>
# The variance of the whole batch is the mean of the variances plus the variance of the means, both weighted by the
# counts.
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
def merge(means, variances, counts):
    """Mean and biased variance, (C,), of the whole, from means and
    variances, (devices, C), and counts, (devices,).
    """
    # BEGIN SOLUTION
    share = (counts / counts.sum())[:, None]
    mean = (share * means).sum(0)
    return mean, (share * (variances + (means - mean) ** 2)).sum(0)
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("merge-statistics", merge)

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def five_devices_one_value_on_the_last(merge):
    from bncourse.exercises.compare import sample
    from bncourse.exercises.many_devices_and_fast_layers import compare_merge

    compare_merge(merge, [3 * sample(n, 4, seed=50 + n) - n for n in (8, 7, 6, 5, 1)])


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: loss-weights

# %% [markdown]
# A batch is spread over several devices in parts of unequal size. Each device takes the mean loss over its own part,
# and DistributedDataParallel takes the plain mean of the devices' gradients. **Write** a function that returns the
# factor by which each device has to multiply its loss, so that the result is the gradient of the mean loss over the
# whole batch.
#
# <details><summary>Hint</summary>
# An image in part i gets the weight factor / (size of part i) / (number of devices). Its weight should be 1 / (size of
# the whole batch).
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
def loss_factors(sizes):
    """One factor for each device, as a list, from the sizes of their
    parts.
    """
    # BEGIN SOLUTION
    return [size * len(sizes) / sum(sizes) for size in sizes]
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("loss-weights", loss_factors)

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def one_image_on_the_last_device(loss_factors):
    from bncourse.exercises.many_devices_and_fast_layers import compare_weights

    compare_weights(loss_factors, (16, 16, 1))


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: kept-activations

# %% [markdown]
# Autograd keeps tensors from the forward pass for the backward pass. **Predict** how many activation-sized tensors it
# keeps for a stack of layers, given as a list such as `["conv", "norm", "relu"]`. Each layer's output is as large as
# its input, no layer works in place, and a tensor that two layers keep counts only once. The check compares your
# numbers with what autograd actually keeps.
#
# <details><summary>Hint 1</summary>
# The gradient of a convolution's weight needs its input. What does ReLU need: its input, its output, or either?
# </details>
# <details><summary>Hint 2</summary>
# Number the tensors: 0 goes into the first layer, 1 comes out of it, and so on. Which numbers does each layer keep?
# Count each number once.
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
def kept(layers):
    """How many tensors are kept for the backward pass: `layers` is a
    list of "conv", "norm" and "relu".
    """
    # BEGIN SOLUTION
    return len({number + (layer == "relu") for number, layer in enumerate(layers)})
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("kept-activations", kept)

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def two_blocks(kept):
    from bncourse.exercises.many_devices_and_fast_layers import compare_kept

    compare_kept(kept, ("conv", "norm", "relu", "conv", "relu", "norm"))


# %%
# HIDDEN
def norms_in_a_row(kept):
    from bncourse.exercises.many_devices_and_fast_layers import compare_kept

    compare_kept(kept, ("conv", "norm", "norm"))


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION
