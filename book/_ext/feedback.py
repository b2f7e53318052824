"""Each page of exercises shows what a check says of a wrong answer: a real report, made when the page is read.

The wrong answers are those of the tests, which know that each of them gets a hint of its own. None of those shown here
tells how the exercise is solved.
"""

import importlib
import json
import sys
from pathlib import Path

from questions import markdown
from sphinx.application import Sphinx

from bncourse.exercises import CheckFailed, check

HELPERS = Path(__file__).parents[2] / "tests" / "helpers"
SAMPLES = {  # an exercise of each set, and which of its wrong answers
    "ex-01": ("standardize", 0),
    "ex-02": ("evaluate", 0),
    "ex-03": ("accumulation", 0),
    "ex-04": ("zoo-mode", 3),
    "ex-05": ("backward", 0),
    "ex-06": ("verdict", 0),
    "ex-07": ("loss-weights", 1),
}


def report(name: str, number: int) -> str:
    """What the check says of that wrong answer."""
    sys.path.insert(0, str(HELPERS))
    try:
        answer, _ = importlib.import_module("wrong_answers").WRONG[name][number]
    finally:
        sys.path.remove(str(HELPERS))
    try:
        check(name, answer)
    except CheckFailed as failure:
        return str(failure)
    raise ValueError(f"the sample of {name} must be a wrong answer, got one that passes")


def show_sample(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the sample after a set's first cell."""
    folder, _, page = docname.rpartition("/")
    if folder != "exercises" or not HELPERS.exists():
        return
    name, number = SAMPLES[page[:5]]
    notebook = json.loads(source[0])
    text = (
        f"**What a check says.** For example, this is what `{name}` says about one wrong answer:\n\n"
        f"```text\n{report(name, number)}\n```\n\n"
        "It names the case that failed, what was expected and what it got. If it recognizes the mistake, it says so."
    )
    notebook["cells"].insert(1, markdown("feedback", text))
    source[0] = json.dumps(notebook)


def setup(app: Sphinx) -> dict:
    app.connect("source-read", show_sample)
    return {"parallel_read_safe": True}
