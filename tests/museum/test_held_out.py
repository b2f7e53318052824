"""Held-out specimens: each bug is in two networks, and in both its damage is beyond noise, whatever a doctor says."""

from functools import cache

import pytest

from bncourse.museum import HELD_OUT, Specimen


@cache
def measured(specimen: Specimen, seed: int = 0) -> tuple[float, float]:
    return specimen.measured(seed)


def test_ten_causes_each_in_two_networks():
    causes = [one.name.partition(" (")[0] for one in HELD_OUT]
    assert len(set(causes)) == 10
    assert all(causes.count(cause) == 2 for cause in causes)


@pytest.mark.parametrize("specimen", HELD_OUT, ids=lambda one: one.name)
def test_damage_is_beyond_noise(specimen):
    """Over two seeds, broken and fixed lie apart by more than either varies."""
    broken, fixed = zip(*(measured(specimen, seed) for seed in (0, 1)), strict=True)
    assert min(broken) > max(fixed) or max(broken) < min(fixed)
    assert abs(sum(broken) - sum(fixed)) / 2 > max(max(broken) - min(broken), max(fixed) - min(fixed))


@pytest.mark.parametrize("specimen", HELD_OUT, ids=lambda one: one.name)
def test_session_does_the_same_damage_again(specimen):
    """What the owner does, done once more, leaves the patient as sick."""
    patient = specimen.broken()
    if patient.session is None:
        pytest.skip("nothing has to run")
    patient.session(patient)
    broken, fixed = measured(specimen)
    assert (specimen.damage(patient) - fixed) / (broken - fixed) > 0.5
