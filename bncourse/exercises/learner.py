"""What a learner has done: results of checks, kept in a small file beside the notebooks."""

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bncourse.files import write_whole

FILE = ".bncourse-progress.json"


def results() -> dict[str, list[int]]:
    """For each exercise that was checked in this folder: how many cases passed, and of how many."""
    try:
        kept = json.loads(Path(FILE).read_text(encoding="utf-8"))
        return {str(name): [int(passed), int(total)] for name, (passed, total) in kept.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def remember(name: str, passed: int, total: int) -> None:
    """Keep the result of a check, unless a better one is kept; a folder that cannot be written keeps none."""
    if os.environ.get("BNCOURSE_PROGRESS", "1" if "ipykernel" in sys.modules else "0") == "0":
        return  # not a learner's notebook
    kept = results()
    if passed >= kept.get(name, [-1])[0] or kept[name][1] != total:
        with contextlib.suppress(OSError):
            write_whole(FILE, json.dumps(kept | {name: [passed, total]}, indent=0).encode())


def is_graded(answer: Any, expected: str) -> bool:
    """Whether the running notebook has this answer under the name by which it is graded; True outside of one."""
    if "IPython" not in sys.modules or not (names := notebooks_names(None)):
        return True
    return names.get(expected) is answer


def notebooks_names(given: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The names that the learner's notebook defines: those given, or those of the running shell."""
    if given is not None:
        return given
    from IPython import get_ipython

    shell = get_ipython()
    return {} if shell is None else shell.user_ns
