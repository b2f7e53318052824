# %% [markdown]
# # Exercises 2: Training and inference
#
# These exercises go with chapters 3 and 4. Write your answer where the code says `...` and run that cell, then run the
# cell below it, which checks your answer and tells you what is wrong. You can check as often as you like.

# %%
import math

import torch

from bncourse.exercises import check

# %% [raw]
# # BEGIN QUESTION
# name: running-statistics

# %% [markdown]
# In training, BatchNorm normalizes with the batch's statistics and keeps a running average of them for later. **Write**
# one step of that average the way torch does it: the momentum is the weight of the *new* value, and the variance that
# goes into the average is the unbiased one.
#
# Return new tensors, and make sure that autograd records nothing.
#
# <details><summary>Hint 1</summary>
# running = (1 - momentum) · running + momentum · new. In other libraries, Keras among them, the momentum is the weight
# of the OLD value. Code copied from one to the other trains fine and then fails in evaluation.
# </details>
# <details><summary>Hint 2</summary>
# <code>x.var(axes)</code> is already the unbiased variance, over all N · H · W values of a channel if you pass the
# right axes.
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
def update(running_mean, running_var, x, momentum=0.1):
    """The new running mean and variance, each (C,), after a batch x,
    (N, C) or (N, C, H, W).
    """
    # BEGIN SOLUTION
    axes = (0, *range(2, x.dim()))
    with torch.no_grad():
        mean = (1 - momentum) * running_mean + momentum * x.mean(axes)
        variance = (1 - momentum) * running_var + momentum * x.var(axes)
    return mean, variance
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("running-statistics", update)

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def twenty_steps_on_images(update):
    import torch
    from torch import nn

    from bncourse.exercises.compare import expect, sample

    layer = nn.BatchNorm2d(2, momentum=0.05)
    mean, variance = torch.zeros(2), torch.ones(2)
    for step in range(20):
        x = 3 * sample(2, 2, 3, 1, seed=50 + step) - 1
        layer(x)
        mean, variance = update(mean, variance, x, 0.05)
    expect(mean, layer.running_mean, "the running mean")
    expect(variance, layer.running_var, "the running variance")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: warm-up

# %% [markdown]
# Running statistics start at mean 0 and variance 1, which say nothing about your data. After one step with momentum 0.1
# they are 10% data; after two steps, 19%.
#
# **Predict** how many steps it takes until *at least* the given fraction of the statistics comes from data. The check
# counts the steps that a real layer takes.
#
# <details><summary>Hint</summary>
# After k steps the starting value still has weight (1 - momentum)^k. Use logarithms to solve for k, and remember that k
# is a whole number.
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
def steps_until(fraction, momentum=0.1):
    """The smallest number of steps after which at least `fraction` of
    the running statistics is data.
    """
    # BEGIN SOLUTION
    return math.ceil(math.log(1 - fraction) / math.log(1 - momentum))
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("warm-up", steps_until)

# %% [markdown]
# How many steps are there in *your* first epoch? If there are fewer than that, what will an evaluation show at the end
# of it?

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def half_way(steps_until):
    from bncourse.exercises.compare import expect

    expect(steps_until(0.5, 0.3), 2, "the number of steps to 50% at momentum 0.3")
    expect(steps_until(0.999, 0.02), 342, "the number of steps to 99.9% at momentum 0.02")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: evaluate

# %% [markdown]
# **Write** a function that measures a classifier's accuracy and leaves no trace:
#
# - it runs the samples in order, at most `batch_size` at a time, and the last batch may be smaller;
# - the model predicts in evaluation mode, whatever mode it was in, and no gradients are recorded;
# - afterwards every module is back in the mode it was in before. Think of a model in training mode whose BatchNorm
#   layers somebody has frozen with `eval()`.
#
# <details><summary>Hint 1</summary>
# Calling <code>model.train()</code> at the end would also switch the frozen layers back to training.
# <code>model.modules()</code> goes through every module, and each one has its own <code>training</code> flag.
# </details>
# <details><summary>Hint 2</summary>
# Is the mean of the batches' accuracies the same as the accuracy over all samples? Try it with one batch of 13 and one
# of 1.
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
def accuracy(model, images, labels, batch_size=256):
    """The share of images, (N, ...), whose largest output is at their
    label, (N,): a number between 0 and 1.
    """
    # BEGIN SOLUTION
    modes = {module: module.training for module in model.modules()}
    model.eval()
    correct = 0
    with torch.no_grad():
        for start in range(0, len(images), batch_size):
            predicted = model(images[start : start + batch_size]).argmax(1)
            correct += (predicted == labels[start : start + batch_size]).sum().item()
    for module, mode in modes.items():
        module.training = mode
    return correct / len(images)
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("evaluate", accuracy)

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def one_sample_at_a_time(accuracy):
    from bncourse.exercises.training_and_inference import compare_accuracy

    compare_accuracy(accuracy, 1)


# %%
# HIDDEN
def a_batch_larger_than_the_data(accuracy):
    from bncourse.exercises.training_and_inference import compare_accuracy

    compare_accuracy(accuracy, 1000)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: batch-noise

# %% [markdown]
# The same image is normalized with a slightly different mean in every batch that it is part of. **Predict** how much
# these means differ: find the standard deviation of a channel's batch mean over many batches. Assume that all values of
# the channel are independent, each with standard deviation `std`.
#
# <details><summary>Hint</summary>
# The variance of a mean of m independent values is their variance divided by m. What is m for images?
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
def mean_noise(std, batch_size, height=1, width=1):
    """The standard deviation of the batch mean of a channel with
    batch_size x height x width values.
    """
    # BEGIN SOLUTION
    return std / math.sqrt(batch_size * height * width)
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("batch-noise", mean_noise)

# %% [markdown]
# Neighbouring pixels in a real image are not independent. Is the true noise larger or smaller than your formula says?

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def one_image_of_many_pixels(mean_noise):
    from bncourse.exercises.compare import expect

    expect(mean_noise(3.0, 1, 30, 30), 0.1, "the noise")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION
