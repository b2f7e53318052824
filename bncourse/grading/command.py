"""The command `bncourse grade`."""

import argparse
import sys
from collections import Counter
from pathlib import Path

EPILOG = """
Each submission runs in a process of its own, without network where the system allows it. A process is no sandbox: the
submissions run as you. Stop it with Ctrl-C; the same command goes on where it was.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Grade a folder of submitted exercise notebooks."
    parser.epilog = EPILOG
    parser.add_argument("submissions", type=Path, help="a folder: STUDENT.ipynb, or one subfolder per student")
    parser.add_argument("--assignment", required=True, help="a name, such as ex-01-..., or an autograder.json")
    parser.add_argument("--out", type=Path, required=True, help="the table to write, such as grades.csv")
    parser.add_argument("--roster", type=Path, help="a text file with one student per line: who should have handed in")
    parser.add_argument("--jobs", type=int, help="how many at once (default: the number of CPU cores)")
    parser.add_argument("--seconds", type=float, default=180, help="time limit per submission (default: 180)")
    parser.add_argument("--megabytes", type=float, default=4096, help="memory limit per submission (default: 4096)")
    parser.add_argument("--retry", action="store_true", help="grade again what timed out, ran out of memory or crashed")


def run(arguments: argparse.Namespace) -> int:
    if sys.platform == "win32":
        print("bncourse grade needs Linux or macOS; on Windows, use WSL.", file=sys.stderr)
        return 2
    from bncourse.grading import Limits, find_assignment, grade_folder

    try:
        assignment = find_assignment(arguments.assignment)
        roster = arguments.roster.read_text().split("\n") if arguments.roster else []
        records = grade_folder(
            arguments.submissions,
            assignment,
            arguments.out,
            limits=Limits(arguments.seconds, arguments.megabytes),
            jobs=arguments.jobs,
            roster=[name.strip() for name in roster if name.strip()],
            retry=arguments.retry,
            say=lambda line: print(line, flush=True),
        )
    except (FileNotFoundError, NotADirectoryError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped. The same command goes on where it was.", file=sys.stderr)
        return 130
    counts = Counter(record.status for record in records)
    print(", ".join(f"{count} {status}" for status, count in counts.most_common()))
    print(f"Table: {arguments.out}\nFeedback: {arguments.out.with_name(arguments.out.stem + '-feedback')}/")
    if any(record.flags for record in records):
        print("Some submissions replaced functions of torch or of the checker (column `replaced`): look at them.")
    return 0
