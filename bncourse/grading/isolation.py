"""Keep a submission away from the network, from other processes and from the files it should not read.

Linux namespaces do it, where the system allows them to users: no network but its own loopback, no other process to
see, and folders such as the hidden cases replaced by empty ones. This is no sandbox. The submission runs as you, can
read your other files, and meets the hidden cases when they call its functions. Where that matters, grade in a virtual
machine.
"""

import functools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import bncourse

NAMESPACES = ("unshare", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
# Loopback up, each hidden folder covered; then every capability is given up, so that nothing can be uncovered again.
ENTER = """
ip link set lo up 2>/dev/null
while [ "$1" != -- ]; do mount -t tmpfs -o size=4k,mode=555 none "$1" || exit 1; shift; done; shift
exec setpriv --bounding-set=-all --no-new-privs "$@"
"""
DIE_WITH_GRADER = ("setpriv", "--pdeathsig", "KILL")


@functools.cache
def why_not_isolated() -> str | None:
    """Why this system offers no isolation; None where it does."""
    missing = [program for program in ("unshare", "setpriv", "mount") if shutil.which(program) is None]
    if missing:
        return f"no {' and no '.join(missing)} here (Linux, package util-linux)"
    probe = subprocess.run(_isolated(["true"], []), capture_output=True, text=True)
    return None if probe.returncode == 0 else (probe.stderr.strip() or "the system refuses new namespaces")


def wrap(command: list[str], hide: Iterable[Path]) -> list[str]:
    """The command, isolated where that is possible; either way it dies with the grader where setpriv exists."""
    if why_not_isolated() is None:
        return [*DIE_WITH_GRADER, *_isolated(command, hide)]
    return [*DIE_WITH_GRADER, *command] if shutil.which("setpriv") else command


def _isolated(command: list[str], hide: Iterable[Path]) -> list[str]:
    return [*NAMESPACES, "sh", "-c", ENTER, "sh", *map(str, hide), "--", *command]


def folders_to_hide(submissions: Path, autograder: Path) -> list[Path]:
    """What a submission has no business reading: the others' work, the hidden cases, solutions and their history."""
    course = Path(bncourse.__file__).resolve().parent.parent
    wanted = {submissions.resolve(), autograder.resolve().parent, course / "instructor", course / ".git"}
    needed = [course / "bncourse", Path(sys.prefix), Path(sys.base_prefix), Path(tempfile.gettempdir())]
    wanted = {folder for folder in wanted if folder.is_dir() and not any(_within(need, folder) for need in needed)}
    return sorted(folder for folder in wanted if not any(_within(folder, other) for other in wanted - {folder}))


def _within(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder)
