"""Every specimen is broken: what its bug costs can be measured, without any doctor, and its fixed twin does not pay."""

import json
from pathlib import Path
from statistics import mean, stdev

import pytest
import torch

from bncourse.museum import HELD_OUT, SPECIMENS

ALL = [*SPECIMENS, *HELD_OUT]
RESULTS = json.loads((Path(__file__).parents[2] / "benchmarks" / "doctor.json").read_text(encoding="utf-8"))
DAMAGE = {row["name"]: row["damage"] for part in ("museum", "held_out") for row in RESULTS.get(part, [])}


@pytest.mark.parametrize("specimen", ALL, ids=lambda one: one.name)
def test_damage_is_beyond_noise(specimen):
    """Recorded for three seeds, the numbers do not overlap and lie apart by more than a deviation; so they do here."""
    broken, fixed = DAMAGE[specimen.name]
    assert min(broken) > max(fixed) or max(broken) < min(fixed)
    assert abs(mean(broken) - mean(fixed)) > max(stdev(broken), stdev(fixed))
    now = specimen.measured()
    assert (now[0] - now[1]) / (broken[0] - fixed[0]) > 0.5, now


def test_names_are_unique():
    assert len({one.name for one in ALL}) == len(ALL)


def test_a_patient_is_a_function_of_its_seed():
    first, again = (SPECIMENS[0].broken(3).model.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
