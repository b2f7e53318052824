# %% [markdown]
# # Exercises 6: Experiments and intervals
#
# These exercises go with chapters 1, 4, 6 and 10. In each of them you run an experiment over several seeds, or plan
# one, and say what its interval allows you to conclude. Write your answer where the code says `...` and run that cell,
# then run the cell below it, which checks your answer and tells you what is wrong. You can check as often as you like.
#
# The interval of a mean over n seeds extends t · s / √n to each side, where s is the standard deviation of the n
# results (dividing by n - 1) and t comes from Student's distribution; here it is `T[n]`. The book's rule for a
# prediction of *more* uses d, the smallest effect that matters. The prediction **holds** if the whole interval is at d
# or above, it **does not hold** if the whole interval is below d, and otherwise it is **undecided here**.

# %%
import torch

from bncourse.exercises import check
from bncourse.exercises.experiments_and_intervals import (
    Runs,
    T,
    share_right,
    trained,
)

# %% [raw]
# # BEGIN QUESTION
# name: verdict

# %% [markdown]
# **Write** the rule: a function that takes the ends of an interval and d, and returns one of the strings `"holds"`,
# `"does not hold"` and `"undecided here"`.
#
# <details><summary>Hint</summary>
# Zero plays no part in the rule. Where does each end have to be?
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
def verdict(low, high, d):
    """What an interval from low to high says about the prediction
    "more", if effects below d do not matter.
    """
    # BEGIN SOLUTION
    if low >= d:
        return "holds"
    return "does not hold" if high < d else "undecided here"
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("verdict", verdict)

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def small_numbers(verdict):
    from bncourse.exercises.experiments_and_intervals import compare_verdict

    compare_verdict(verdict, 0.004, 0.02, 0.01)


# %%
# HIDDEN
def below_zero_and_undecided(verdict):
    from bncourse.exercises.experiments_and_intervals import compare_verdict

    compare_verdict(verdict, -8.0, 1.5, 1.0)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: enough-seeds

# %% [markdown]
# Before an experiment you run a pilot, on separate seeds. `run("with", seed)` and `run("without", seed)` give the
# accuracies of two variants, in points. **Write** a function that runs the pilot and returns how many seeds the
# experiment needs so that the interval of the *difference* extends at most d to each side. Use t = 2, which is nearly
# right for more than ten seeds.
#
# <details><summary>Hint 1</summary>
# The interval extends 2 · s / √n to each side. Which s is that?
# </details>
# <details><summary>Hint 2</summary>
# Some seeds are easy for both variants. That cancels if you take the difference seed by seed.
# </details>

# %%
run = Runs()
run("with", 10), run("without", 10)

# %% [raw]
# # BEGIN SOLUTION


# %%
def enough_seeds(run, pilot, d):
    """How many seeds are needed, from a pilot on the seeds `pilot`: a
    whole number.
    """
    # BEGIN SOLUTION
    differences = torch.tensor([run("with", seed) - run("without", seed) for seed in pilot])
    return int(torch.ceil((2 * differences.std() / d) ** 2))
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("enough-seeds", enough_seeds)

# %% [markdown]
# Try it on other runs: `enough_seeds(Runs(noise=3.0), range(5), 1.0)`. What happens to the number of seeds if you halve
# d?

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def another_pilot(enough_seeds):
    from bncourse.exercises import experiments_and_intervals as given

    given.compare_enough(enough_seeds, given.Runs(noise=0.8, effect=-1.0), range(70, 78), 0.3)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: paired

# %% [markdown]
# **Write** a function that runs both variants with each seed and returns the mean difference, "with" minus "without",
# and its interval.
#
# <details><summary>Hint 1</summary>
# Take the difference seed by seed first, so that any luck the two variants share cancels.
# </details>
# <details><summary>Hint 2</summary>
# The standard error of a mean is the standard deviation divided by the square root of the number of seeds.
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
def paired_interval(run, seeds):
    """Mean, low end and high end of the 95% interval of
    run("with", seed) - run("without", seed).
    """
    # BEGIN SOLUTION
    differences = torch.tensor([run("with", seed) - run("without", seed) for seed in seeds])
    n = len(differences)
    reach = T[n] * differences.std() / n**0.5
    return differences.mean(), differences.mean() - reach, differences.mean() + reach
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("paired", paired_interval)

# %% [markdown]
# Look at `paired_interval(Runs(), range(10, 20))`, and at each of the two variants on its own. How wide would the
# interval be if they had been run with different seeds?

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def twenty_seeds(paired_interval):
    from bncourse.exercises import experiments_and_intervals as given

    given.compare_paired(paired_interval, given.Runs(effect=0.1, noise=2.0), range(80, 100))


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: forgotten-eval

# %% [markdown]
# What does it cost to forget `model.eval()` on a test set that is sorted by class? `trained(seed)` trains a small
# network with BatchNorm and returns it, *in training mode*, together with its test images and labels, which are sorted
# by class. `share_right(model, images, labels)` gives the share of images that the model gets right, in points. It
# takes batches of 20 and uses whatever mode the model is in.
#
# **Run the experiment** on the given seeds (the argument `train` is a function like `trained`), and **judge** it:
# return the ends of the interval of what the mistake costs (right mode minus wrong mode, in points), and the verdict on
# "it costs accuracy".
#
# <details><summary>Hint 1</summary>
# Each seed gives one network and two accuracies. Which of the two evaluations changes the running statistics?
# </details>
# <details><summary>Hint 2</summary>
# Two of the functions that you wrote above can do the rest.
# </details>

# %%
model, images, labels = trained(10)
share_right(model, images, labels)

# %% [raw]
# # BEGIN SOLUTION


# %%
def forgotten_eval(train, seeds, d):
    """Low end, high end and verdict for what training mode costs on
    sorted test images.
    """
    # BEGIN SOLUTION
    costs = []
    for seed in seeds:
        model, images, labels = train(seed)
        right = share_right(model.eval(), images, labels)
        costs.append(right - share_right(model.train(), images, labels))
    costs = torch.tensor(costs)
    reach = T[len(costs)] * costs.std() / len(costs) ** 0.5
    low, high = (costs.mean() - reach).item(), (costs.mean() + reach).item()
    return low, high, verdict(low, high, d)
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("forgotten-eval", forgotten_eval)

# %% [raw]
# # EXPLANATION
# ask: What did you measure? Tell a colleague who wants to check it: give the effect, its interval, and what the
#   experiment does not show.
# rubric: the effect with its unit and its interval (1/2); how many seeds, on which data, or what the experiment does
#   not show (1/2)
# good: With five seeds, training mode on sorted batches of 20 costs 79 points (95% interval 74 to 84), for small
#   networks and artificial patterns; on shuffled test sets the cost was about four points. It does not show what
#   happens on other data.
# weak: Forgetting eval is bad.

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def six_seeds(forgotten_eval):
    from bncourse.exercises.experiments_and_intervals import compare_forgotten

    compare_forgotten(forgotten_eval, range(20, 26), 1.0)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: race

# %% [markdown]
# You want to compare two variants, `"first"` and `"second"`. `run(variant, rate, seed)` trains one of them with the
# given learning rate and returns its accuracy in points. **Write** a race that is fair:
#
# - each variant runs at its own learning rate, the one with the best mean accuracy on the seeds `choosing`;
# - the race itself is run on the other seeds, `seeds`, at these rates and no others, and the difference is paired;
# - the function returns the ends of the interval of first minus second, and the verdict on "the first is better".
#
# <details><summary>Hint 1</summary>
# Why not choose the rates on the seeds of the race? One of the five rates will look best there, and part of that is
# luck.
# </details>
# <details><summary>Hint 2</summary>
# <code>max(rates, key=...)</code> finds the rate with the best mean.
# </details>

# %% [raw]
# # BEGIN SOLUTION


# %%
def race(run, rates, choosing, seeds, d):
    """Low end, high end and verdict for first minus second, each at the
    rate that was best on `choosing`.
    """
    # BEGIN SOLUTION
    best = {
        variant: max(rates, key=lambda rate: sum(run(variant, rate, seed) for seed in choosing))
        for variant in ("first", "second")
    }
    differences = torch.tensor(
        [run("first", best["first"], seed) - run("second", best["second"], seed) for seed in seeds]
    )
    reach = T[len(differences)] * differences.std() / len(differences) ** 0.5
    low, high = (differences.mean() - reach).item(), (differences.mean() + reach).item()
    return low, high, verdict(low, high, d)
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% tags=["raises-exception"]
check("race", race)

# %% [raw]
# # BEGIN TESTS


# %%
# HIDDEN
def the_second_is_better(race):
    from bncourse.exercises.experiments_and_intervals import compare_race

    compare_race(race, -4.0, range(100, 106), range(110, 120))


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION
