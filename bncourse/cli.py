"""The command line: `bncourse grade` and its sisters. A command's module is imported only when it is called."""

import argparse
from collections.abc import Sequence
from importlib import import_module

# Each command is a module with `add_arguments(parser)` and `run(arguments) -> exit code`.
COMMANDS = {
    "grade": ("bncourse.grading.command", "grade a folder of submitted exercise notebooks"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `bncourse COMMAND ...`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bncourse", description="Tools of the course on batch normalization.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (_, summary) in COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)
    chosen, rest = parser.parse_known_args(arguments)
    module = import_module(COMMANDS[chosen.command][0])
    command = argparse.ArgumentParser(prog=f"bncourse {chosen.command}")
    module.add_arguments(command)
    return module.run(command.parse_args(rest))


if __name__ == "__main__":
    raise SystemExit(main())
