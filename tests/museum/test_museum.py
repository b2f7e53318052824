"""Every specimen is broken: what its bug costs can be measured, without any doctor, and its fixed twin does not pay."""

import pytest
import torch

from bncourse.museum import HELD_OUT, SPECIMENS

ALL = [*SPECIMENS, *HELD_OUT]


@pytest.mark.parametrize("specimen", ALL, ids=lambda one: one.name)
def test_damage_is_beyond_noise(specimen):
    """The two numbers lie apart by more than either of them varies over two seeds."""
    broken, fixed = torch.tensor([specimen.measured(seed) for seed in range(2)], dtype=torch.float64).nan_to_num(1e9).T
    spread = max((broken.max() - broken.min()).item(), (fixed.max() - fixed.min()).item())
    gap = max(broken.min() - fixed.max(), fixed.min() - broken.max()).item()
    assert gap > 0 and abs(broken.mean() - fixed.mean()) > spread


def test_names_are_unique():
    assert len({one.name for one in ALL}) == len(ALL)


def test_a_patient_is_a_function_of_its_seed():
    first, again = (SPECIMENS[0].broken(3).model.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
