"""The doctor says of each specimen what the museum's page says it does, and the page has every specimen."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.doctor import VERDICTS, verdict
from bncourse.doctor import RULES
from bncourse.museum import HELD_OUT, SPECIMENS

RESULTS = json.loads((Path(__file__).parents[2] / "benchmarks" / "doctor.json").read_text(encoding="utf-8"))
ROWS = {row["name"]: row for part in ("museum", "held_out") for row in RESULTS.get(part, [])}


def test_every_specimen_was_measured_and_no_other():
    """If not: python -m benchmarks.doctor --only museum --only held_out."""
    assert [row["name"] for row in RESULTS["museum"]] == [one.name for one in SPECIMENS]
    assert [row["name"] for row in RESULTS.get("held_out", [])] == [one.name for one in HELD_OUT]


@pytest.mark.parametrize("specimen", [*SPECIMENS, *HELD_OUT], ids=lambda one: one.name)
def test_the_doctor_does_no_worse_than_the_page_says(specimen):
    """The page has the worst of three seeds; this is the first of them."""
    row, found = ROWS[specimen.name], verdict(specimen)
    assert VERDICTS.index(found["verdict"]) <= VERDICTS.index(row["verdict"])
    assert set(found["twin"]) <= set(row["twin"])


def test_specimens_name_rules_that_there_are():
    assert {id for one in SPECIMENS for id in one.rules} <= {rule.id for rule in RULES}


def test_threads_are_addresses_of_threads_with_the_day_they_were_opened():
    threads = [thread for one in SPECIMENS for thread in one.threads]
    assert all(one.threads for one in SPECIMENS)
    wrong = [
        thread
        for thread in threads
        if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+/(issues|pull)/\d+", thread.link)
        or not re.fullmatch(r"(20\d\d-[01]\d-[0-3]\d)?", thread.date)
    ]
    assert not wrong
