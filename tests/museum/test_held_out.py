"""Held-out specimens: each bug is in two networks, and in both its damage is beyond noise, whatever a doctor says."""

import pytest

from bncourse.museum import HELD_OUT


def causes() -> list[str]:
    return [one.name.partition(" (")[0] for one in HELD_OUT]


def test_ten_causes_each_in_two_networks():
    assert len(set(causes())) == 10
    assert all(causes().count(cause) == 2 for cause in causes())


@pytest.mark.parametrize("specimen", HELD_OUT, ids=lambda one: one.name)
def test_damage_is_beyond_noise(specimen):
    """Over two seeds, broken and fixed lie apart by more than either varies."""
    broken, fixed = zip(*(specimen.measured(seed) for seed in (0, 1)), strict=True)
    assert min(broken) > max(fixed) or max(broken) < min(fixed)
    assert abs(sum(broken) - sum(fixed)) / 2 > max(max(broken) - min(broken), max(fixed) - min(fixed))


@pytest.mark.parametrize("specimen", HELD_OUT, ids=lambda one: one.name)
def test_session_leaves_the_patient_as_sick(specimen):
    """What the owner does, done once more, shows the same damage."""
    patient = specimen.broken()
    if patient.session is None:
        pytest.skip("nothing has to run")
    patient.session(patient)
    broken, fixed = specimen.damage(patient), specimen.damage(specimen.fixed())
    reference = specimen.measured()
    assert (broken - fixed) / (reference[0] - reference[1]) > 0.5
