# %% [markdown]
# # Exercises 5: The backward pass and deployment
#
# These exercises go with chapters 12 and 13. Write your answer where the code says `...` and run that cell, then run
# the cell below it, which checks your answer and tells you what is wrong. You can check as often as you like.

# %%
import torch
from torch import nn

from bncourse.exercises import check

# %% [raw]
# # BEGIN QUESTION
# name: backward

# %% [markdown]
# **Write** the backward pass of BatchNorm in training mode for batches of features, without autograd. You are given
# `dy`, the gradient of the loss with respect to the output; return the gradients with respect to the input, the weight
# and the bias.
#
# <details><summary>Hint 1</summary>
# Start with dbias and dweight: y = weight · x-hat + bias, and every sample contributes.
# </details>
# <details><summary>Hint 2</summary>
# Let g = weight · dy, the gradient with respect to x-hat. The input x affects the loss in three ways: directly, through
# the mean and through the variance. The path through the mean subtracts mean(g), the path through the variance
# subtracts x-hat · mean(g · x-hat), and everything is divided by sqrt(variance + eps).
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
def backward(dy, x, weight, eps=1e-5):
    """The gradients (dx, dweight, dbias) for dy and x, (N, C), and
    weight, (C,).
    """
    # BEGIN SOLUTION
    scale = (x.var(0, correction=0) + eps).rsqrt()
    x_hat = (x - x.mean(0)) * scale
    g = weight * dy
    dx = scale * (g - g.mean(0) - x_hat * (g * x_hat).mean(0))
    return dx, (dy * x_hat).sum(0), dy.sum(0)
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("backward", backward)

# %% [markdown]
# Look at your dx. What is its sum over the batch, and what is its product with x-hat? In which two directions can you
# move x without the loss noticing?

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def four_samples_far_from_zero(backward):
    from bncourse.exercises.backward_and_deployment import compare_backward
    from bncourse.exercises.compare import sample

    compare_backward(backward, 4 * sample(4, 5, seed=90) + 20, eps=1e-3)


# %%
# HIDDEN
def nearly_constant_features(backward):
    from bncourse.exercises.backward_and_deployment import compare_backward
    from bncourse.exercises.compare import sample

    compare_backward(backward, 1e-3 * sample(16, 2, seed=91))


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: fold

# %% [markdown]
# In evaluation BatchNorm is a fixed scale and shift per channel, so it can disappear into the convolution before it.
# **Write** the function that does this: it makes one new convolution that returns what the pair returned, and leaves
# the pair as it is. The norm may have no weight and bias (`affine=False`), and the convolution may have no bias.
#
# <details><summary>Hint 1</summary>
# Write out scale · (W * x + b - mean) + beta with scale = gamma / sqrt(running_var + eps), and separate what multiplies
# x from what does not.
# </details>
# <details><summary>Hint 2</summary>
# A convolution's weight has shape (out, in / groups, kh, kw): the scale goes along axis 0. A convolution also has a
# stride, padding, dilation and groups.
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
def fold(convolution, norm):
    """One nn.Conv2d that does what `convolution` and then `norm`, an
    nn.BatchNorm2d, do in evaluation.
    """
    # BEGIN SOLUTION
    folded = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,
        stride=convolution.stride,
        padding=convolution.padding,
        dilation=convolution.dilation,
        groups=convolution.groups,
    )
    with torch.no_grad():
        scale = (norm.running_var + norm.eps).rsqrt()
        shift = -norm.running_mean * scale
        if norm.affine:
            scale, shift = norm.weight * scale, norm.weight * shift + norm.bias
        if convolution.bias is not None:
            shift = shift + convolution.bias * scale
        folded.weight.copy_(convolution.weight * scale[:, None, None, None])
        folded.bias.copy_(shift)
    return folded
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("fold", fold)

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def a_norm_without_weight_and_bias_after_groups(fold):
    from bncourse.exercises.backward_and_deployment import compare_fold

    compare_fold(fold, affine=False, groups=2, eps=0.01)


# %%
# HIDDEN
def a_dilated_convolution(fold):
    from bncourse.exercises.backward_and_deployment import compare_fold

    compare_fold(fold, dilation=2, padding=2, bias=True)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: recalibrate

# %% [markdown]
# A model's running statistics can be wrong for the data it will meet: perhaps the weights were averaged, the batches
# were too small, or the camera has changed. **Write** a function that recomputes them in place:
#
# - every BatchNorm's running mean and variance become those of *all* the samples in *all* the batches that reach it, as
#   if they were one large batch, and nothing of the old values remains. The batches go through the model one after
#   another, and meanwhile each BatchNorm normalizes with the batch's own statistics. The batches may differ in size.
# - nothing else changes: not the parameters, not the mode of any module, not the momentum. Dropout stays off while the
#   batches go through.
#
# <details><summary>Hint 1</summary>
# The mean of the batches' variances is not the variance of all the samples: it misses how far apart the batches' means
# are. The variance of all samples is the mean of the variances PLUS the variance of the means, both weighted by the
# batches' sizes. (Torch's <code>update_bn</code> leaves the second part out.)
# </details>
# <details><summary>Hint 2</summary>
# Call <code>model.eval()</code> first, then <code>train()</code> on the BatchNorm layers alone. All of them derive from
# <code>nn.modules.batchnorm._BatchNorm</code>. A hook that you add with <code>register_forward_pre_hook</code> shows
# you what goes into each one.
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
def recalibrate(model, batches):
    """Recompute the running statistics of every BatchNorm of `model`
    from `batches`, a list of input tensors.
    """
    # BEGIN SOLUTION
    modes = {module: module.training for module in model.modules()}
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    seen = {norm: [] for norm in norms}
    model.eval()
    hooks = [norm.register_forward_pre_hook(lambda norm, inputs: seen[norm].append(inputs[0])) for norm in norms]
    for norm in norms:
        norm.train()
    with torch.no_grad():
        for batch in batches:
            model(batch)
        for norm in norms:
            values = torch.cat([x.transpose(0, 1).flatten(1) for x in seen[norm]], dim=1)
            norm.running_mean.copy_(values.mean(1))
            norm.running_var.copy_(values.var(1, correction=0))
    for hook in hooks:
        hook.remove()
    for module, mode in modes.items():
        module.training = mode
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("recalibrate", recalibrate)

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def the_order_of_the_batches_does_not_matter(recalibrate):
    from bncourse.exercises.backward_and_deployment import stale_model
    from bncourse.exercises.compare import expect, require

    forwards, batches = stale_model()
    recalibrate(forwards, batches)
    backwards, batches = stale_model()
    recalibrate(backwards, batches[::-1])
    expect(forwards[3].running_mean, backwards[3].running_mean, "the running mean")
    require(bool((forwards[3].running_mean != 7.0).any()), "nothing was recalibrated")


# %%
# HIDDEN
def a_model_in_training_stays_in_training(recalibrate):
    import torch

    from bncourse.exercises.backward_and_deployment import stale_model
    from bncourse.exercises.compare import expect, require

    model, batches = stale_model()
    recalibrate(model.train(), batches)
    require(all(module.training for module in model.modules()), "a module has left training mode")
    expect(model[0].running_mean, torch.cat(batches).mean(0), "the running mean")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION
