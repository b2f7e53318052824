"""Grade a folder of submitted notebooks: every one in a process of its own, none able to stop the others.

Otter makes the student notebooks and the cases (``instructor/make.py``), but its runner does not grade them. It copies
the hidden tests into the folder where the student's cells then run, has no time or memory limit, and takes the result
as a pickle that the student's own process wrote. Here the cases reach the process only after the student's cells have
run, its limits are set from outside, and what it reports is text that is checked.

A process with limits is not a sandbox: see ``bncourse.grading.supervise``, and do not grade people you cannot talk to.
"""

from bncourse.grading.assignment import Assignment, find_assignment
from bncourse.grading.command import grade_folder
from bncourse.grading.supervise import Limits

__all__ = ["Assignment", "Limits", "find_assignment", "grade_folder"]
