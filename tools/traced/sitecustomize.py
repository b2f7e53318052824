"""Python imports this at its start: each file of the course that the process reads is noted on a list.

``tools.notebooks`` puts this folder on the path of the notebooks' kernels. The processes that a kernel starts inherit
the path and the variables, so that what they read is on the list too.
"""

import os
import re
import sys


def trace(root: str, files: str) -> None:
    log = os.open(files, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    folders = (os.path.join(root, "bncourse", ""), os.path.join(root, "book", ""))
    seen = set()

    def note(event: str, arguments: tuple) -> None:
        if event != "open" or not isinstance(arguments[0], str | bytes) or arguments[2] & os.O_WRONLY:
            return
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if path not in seen:
            seen.add(path)
            if (path := os.path.realpath(path)).startswith(folders):
                source = re.sub(r"__pycache__.(.*)\.cpython-[^.]*\.pyc$", r"\1.py", path)
                if "__pycache__" not in source:  # numba's results, which follow from the source
                    os.write(log, os.fsencode(source) + b"\n")

    sys.addaudithook(note)


if "BNCOURSE_TRACED_FILES" in os.environ:
    trace(os.environ["BNCOURSE_TRACED_ROOT"], os.environ["BNCOURSE_TRACED_FILES"])
