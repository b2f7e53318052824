"""The command line. What a command needs is imported only when it is called."""

import argparse
import pkgutil
import re
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``bncourse COMMAND ...``; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bncourse", description="Tools of the course on batch normalization.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    add_grade(commands)
    add_gradebook(commands)
    add_autograder(commands)
    add_doctor(commands)
    add_edition(commands)
    add_quiz(commands)
    add_forget(commands)
    chosen = parser.parse_args(arguments)
    return pkgutil.resolve_name(chosen.run)(chosen)


def add_grade(commands: argparse._SubParsersAction) -> None:
    grade = commands.add_parser(
        "grade",
        help="grade a folder of submitted exercise notebooks",
        description="Grade a folder of submitted exercise notebooks.",
        epilog="Each submission runs in its own process, and without network access if the system can enforce that. A "
        "process is not a sandbox: the submissions run as you. You can stop with Ctrl-C; the same command then picks "
        "up where it stopped.",
    )
    grade.add_argument("submissions", type=Path, help="a folder or a zip archive, as the learning platform made it")
    grade.add_argument("--assignment", required=True, help="a name, such as ex-01-..., or an autograder.json")
    grade.add_argument("--exercises", help="grade only these exercises, such as signal,standardize (default: all)")
    grade.add_argument("--out", type=Path, required=True, help="the table to write, such as grades.csv")
    grade.add_argument(
        "--roster", type=Path, action="append", default=[], help="the class list: one name on each line, or a CSV"
    )
    grade.add_argument("--due", help="when it was due, such as 2026-03-01T23:59 (the platform's time)")
    grade.add_argument(
        "--late-days", type=int, default=0, help="days after the due time that cost nothing (default: 0)"
    )
    grade.add_argument(
        "--late-penalty", type=float, default=0, help="percent of the score taken off for each further day"
    )
    grade.add_argument("--jobs", type=int, help="how many to grade at once (default: the number of CPU cores)")
    grade.add_argument("--seconds", type=float, default=180, help="time limit per submission (default: 180)")
    grade.add_argument("--megabytes", type=float, default=4096, help="memory limit per submission (default: 4096)")
    grade.add_argument("--anonymous", action="store_true", help="leave names out of the report about the class")
    grade.add_argument(
        "--attempts", choices=["last", "best"], default="last", help="which of several attempts counts (default: last)"
    )
    grade.add_argument("--edition", type=Path, help="grade with the checks in this file, which `bncourse edition` made")
    grade.add_argument("--retry", action="store_true", help="grade again what timed out, ran out of memory or crashed")
    grade.set_defaults(run="bncourse.grading.command:run")


def add_gradebook(commands: argparse._SubParsersAction) -> None:
    gradebook = commands.add_parser(
        "gradebook",
        help="make one table from those of several exercise sets",
        description="Make one table from those that `bncourse grade` made, or the file that a learning platform takes.",
    )
    gradebook.add_argument("tables", type=Path, nargs="+", help="the sets' tables")
    gradebook.add_argument("--out", type=Path, required=True, help="the file to write")
    gradebook.add_argument("--roster", type=Path, action="append", default=[], help="the class list, as for grading")
    gradebook.add_argument(
        "--platform", choices=["canvas", "moodle", "blackboard"], help="write the columns that this platform reads"
    )
    gradebook.set_defaults(run="bncourse.grading.command:gradebook")


def add_autograder(commands: argparse._SubParsersAction) -> None:
    autograder = commands.add_parser(
        "autograder",
        help="make a zip for Gradescope",
        description="Write the zip that Gradescope takes as the autograder for a programming assignment.",
    )
    autograder.add_argument("--assignment", required=True, help="a name, such as ex-01-..., or an autograder.json")
    autograder.add_argument("--out", type=Path, required=True, help="the zip to write")
    autograder.set_defaults(run="bncourse.grading.command:autograder")


def add_doctor(commands: argparse._SubParsersAction) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="find normalization mistakes in your own model",
        description="Examine a model's norms and, if there is a batch, what they see and what each mistake costs.",
        epilog="Exit code: 0, or 1 if there is a finding as bad as --fail-on says, or 2 for bad input. The model is "
        "your own code, and it is run; the files are only read as tensors.",
    )
    doctor.add_argument(
        "model", nargs="?", help="package.module:make_model, a function that takes no arguments, or a module"
    )
    doctor.add_argument(
        "--input", action="append", default=[], help="the shape of an input of random numbers, such as 8,3,32,32"
    )
    doctor.add_argument(
        "--batch", type=Path, help="a file written by torch.save: inputs, (inputs, targets), or a list of them"
    )
    doctor.add_argument("--checkpoint", type=Path, help="a file written by torch.save with the model's state_dict")
    doctor.add_argument("--json", action="store_true", help="print JSON, for other programs")
    doctor.add_argument("--explain", metavar="ID", help="explain a rule, such as BN-F01")
    doctor.add_argument(
        "--select", action="append", default=[], metavar="IDS", help="only these rules, such as BN-S,BN-F01"
    )
    doctor.add_argument("--ignore", action="append", default=[], metavar="IDS", help="all but these rules")
    doctor.add_argument(
        "--fail-on", choices=["error", "warning", "note"], help="exit with code 1 if there is a finding as bad as this"
    )
    doctor.add_argument("--debug", action="store_true", help="show a traceback for bad input")
    doctor.set_defaults(run="bncourse.doctor.command:run")


def add_edition(commands: argparse._SubParsersAction) -> None:
    edition = commands.add_parser(
        "edition",
        help="keep the checks and the notebooks as they are now in one file",
        description="Write the checks, the hidden cases and the notebooks as they are now into one file. "
        "`bncourse grade --edition` grades with it, however the course changes later. Run this in the course's folder.",
    )
    edition.add_argument("--out", type=Path, required=True, help="the zip to write")
    edition.set_defaults(run="bncourse.grading.command:edition")


def chapters(text: str) -> range:
    if not (found := re.fullmatch(r"(\d+)(?:-(\d+))?", text)):
        raise argparse.ArgumentTypeError(f"expected chapters such as 1-5 or 3, got {text!r}")
    return range(int(found[1]), int(found[2] or found[1]) + 1)


def add_quiz(commands: argparse._SubParsersAction) -> None:
    quiz = commands.add_parser(
        "quiz",
        help="make a sheet of questions, with different numbers for each class",
        description="Write a sheet of up to twenty questions, and its key next to it. Each class gets different "
        "numbers.",
    )
    quiz.add_argument("--class", dest="of_class", required=True, help="the class's name, which decides the numbers")
    quiz.add_argument(
        "--chapters", type=chapters, default="1-15", help="the chapters it asks about, such as 1-5 (default: all)"
    )
    quiz.add_argument("--out", type=Path, required=True, help="the sheet to write, such as quiz.html")
    quiz.set_defaults(run="bncourse.grading.command:quiz")


def add_forget(commands: argparse._SubParsersAction) -> None:
    forget = commands.add_parser(
        "forget",
        help="erase a student from tables of grades and the files next to them",
        description="Erase a student from tables of grades and the files next to them, not from what was handed in.",
    )
    forget.add_argument("student", help="the name, as it is in the tables")
    forget.add_argument("tables", type=Path, nargs="+", help="the sets' tables")
    forget.set_defaults(run="bncourse.grading.command:forget_student")


if __name__ == "__main__":
    raise SystemExit(main())
