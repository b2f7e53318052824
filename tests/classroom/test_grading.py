"""A folder of hostile submissions is graded to the end, with the right statuses, and nothing of it remains."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import hostile_submissions as hostile
import pytest

pytest.importorskip("resource", reason="grading needs Linux or macOS")

from bncourse import cli
from bncourse.grading import Limits, find_assignment, grade_folder
from bncourse.grading.assignment import Assignment
from bncourse.grading.command import DAY, PREFIX, remove_stale
from bncourse.grading.report import Log, Record
from bncourse.grading.submissions import Unreadable, find_submissions, read_notebook
from bncourse.grading.supervise import folders_to_hide, why_not_isolated

LIMITS = Limits(seconds=30, megabytes=3000)  # loops without end use it up
isolated = pytest.mark.skipif(why_not_isolated() is not None, reason=f"no isolation here: {why_not_isolated()}")


@pytest.fixture(scope="module")
def temporary(tmp_path_factory):
    """A folder for temporary files that only this module uses."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr("tempfile.tempdir", None)
        yield folder


@pytest.fixture(scope="module")
def assignment(tmp_path_factory):
    path = tmp_path_factory.mktemp("private") / "autograder.json"
    path.write_text(json.dumps(hostile.ASSIGNMENT))
    return Assignment.read(path)


@pytest.fixture(scope="module")
def listener():
    """A port on this machine, and the connections it got."""
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept():
            while True:
                try:
                    connections.append(server.accept())
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1], connections


@pytest.fixture(scope="module")
def graded(tmp_path_factory, temporary, assignment, listener):
    """All hostile submissions, graded once: their folder, the expected results, the records, the output."""
    base = tmp_path_factory.mktemp("course")
    folder = base / "submissions"
    folder.mkdir()
    expected = {}
    for student, (content, *result) in hostile.submissions(listener[0], assignment.path.parent, folder).items():
        (folder / f"{student}.ipynb").write_text(content, encoding="utf-8", errors="surrogateescape")
        expected[student] = tuple(result)
    (folder / "empty").mkdir()
    (folder / "two notebooks").mkdir()
    for name in ("a", "b"):
        (folder / "two notebooks" / f"{name}.ipynb").write_text(hostile.notebook(hostile.RIGHT))
    (folder / "several").mkdir()
    (folder / "several" / "draft.ipynb").write_text(hostile.notebook(hostile.WRONG))
    (folder / "several" / "tiny.ipynb").write_text(hostile.notebook(hostile.RIGHT))
    (folder / "essay.pdf").write_text("not a notebook")
    expected |= {"empty": ("missing", 0.0), "two notebooks": ("unreadable", 0.0), "several": ("ok", hostile.POINTS)}
    expected["on the roster"] = ("missing", 0.0)
    output = []
    started = time.monotonic()
    out = base / "grades.csv"
    records = grade_folder(folder, assignment, out, limits=LIMITS, jobs=2, roster=["on the roster"], say=output.append)
    print(*output, f"{len(records)} submissions in {time.monotonic() - started:.0f} s", sep="\n")
    return folder, expected, {record.student: record for record in records}, output, out


class TestHostileFolder:
    def test_every_submission_has_the_right_status_and_score(self, graded):
        _, expected, records, *_ = graded
        found = {name: (record.status, sum(record.scores.values())) for name, record in records.items()}
        assert found == expected

    def test_the_table_says_the_same(self, graded):
        _, expected, _, _, out = graded
        with open(out, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        assert {row["student"].removeprefix("'"): (row["status"], float(row["score"])) for row in rows} == expected
        assert all(float(row["possible"]) == 5 for row in rows)
        assert "'=1+1" in {row["student"] for row in rows}  # no formula for a spreadsheet

    @pytest.mark.parametrize(
        ("student", "part"),
        [
            ("endless loop", "cell 2: TimeLimit"),
            ("endless answer", f"signal: stopped after {LIMITS.seconds / 10:g} s"),
            ("stubborn loop", f"stopped after {LIMITS.seconds:g} s, in cell 2"),
            ("allocates", "cell 2: RuntimeError"),
            ("allocates in Python", "cell 2: MemoryError"),
            ("ends its process", "exit code 3 in cell 2"),
            ("ends its process oddly", "the process ended with exit code 200 in cell 2"),
            ("breaks its process", "SIGSEGV in cell 2"),
            ("import that does not exist", "cell 1: ModuleNotFoundError: No module named 'no_such_module'"),
            ("asks for input", "cell 2: EOFError"),
            ("invalid JSON", "not a notebook"),
            ("two notebooks", "name one of them tiny.ipynb"),
            ("empty", "no notebook was handed in"),
        ],
    )
    def test_the_reason_says_what_happened(self, graded, student, part):
        assert part in graded[2][student].reason

    def test_nothing_is_left_running_and_no_folder_remains(self, graded, temporary):
        wait_until_gone(temporary)
        assert not list(temporary.iterdir())

    @isolated
    def test_a_submission_reaches_neither_the_network_nor_the_hidden_cases(self, graded, listener):
        _, _, records, *_ = graded
        assert not listener[1]
        for student in ("connects", "searches"):
            assert [outcome.message for outcome in records[student].outcomes["loot"]] == [
                "AssertionError: nothing found"
            ]

    def test_replaced_functions_are_flagged_and_do_not_count(self, graded):
        records = graded[2]
        assert set(records["replaces"].flags) >= {
            "bncourse.exercises.run_case",
            "bncourse.exercises.compare.expect",
            "bncourse.exercises.exercise.Case.run",
            "bncourse.exercises.EXERCISES['signal']",
            "torch.allclose",
        }
        assert [name for name, record in records.items() if record.flags] == ["replaces"]

    def test_feedback_helps_and_does_not_reveal_hidden_cases(self, graded):
        _, expected, _, _, out = graded
        pages = {path.stem: path.read_text() for path in (out.parent / "grades-feedback").glob("*.md")}
        assert set(pages) == set(expected)
        for page in pages.values():
            assert "secret" not in page and "loot_was_found" not in page and "nothing found" not in page
        assert "**failed**: 30 layers, gain 0.5" in pages["wrong"]
        assert "Hint: This multiplies gain by depth" in " ".join(pages["wrong"].split())
        assert "further cases passed: 1 of 1" in pages["good"]

    def test_progress_and_warnings_are_shown(self, graded):
        output = graded[3]
        assert any("essay.pdf" in line for line in output)
        assert any(line.startswith(f"[{len(graded[1])}/{len(graded[1])}]") for line in output)

    def test_a_second_run_grades_only_what_changed(self, graded, assignment):
        folder, expected, _, _, out = graded
        output = []
        (folder / "wrong.ipynb").write_text(hostile.notebook(hostile.RIGHT))
        records = grade_folder(folder, assignment, out, limits=LIMITS, roster=["on the roster"], say=output.append)
        assert sum(line.startswith("[") for line in output) == 1
        scores = {record.student: sum(record.scores.values()) for record in records}
        assert scores == {name: score for name, (_, score) in expected.items()} | {"wrong": hostile.POINTS}


def processes_of(folder):
    """Command lines of running processes whose environment names that folder: its HOME or TMPDIR is in it."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def wait_until_a_cell_runs(folder, seconds=60):
    deadline = time.monotonic() + seconds
    while not list(folder.glob("*/*/ipython")):  # IPython has started in the worker's folder
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_until_gone(folder, seconds=10):
    deadline = time.monotonic() + seconds
    while running := processes_of(folder):
        assert time.monotonic() < deadline, running
        time.sleep(0.1)


@isolated
def test_a_killed_run_leaves_nothing_and_goes_on(tmp_path, assignment):
    folder, temporary = tmp_path / "submissions", tmp_path / "temporary"
    folder.mkdir(), temporary.mkdir()
    (folder / "a.ipynb").write_text(hostile.notebook(hostile.RIGHT))
    (folder / "b.ipynb").write_text(hostile.notebook("while True:\n    pass  # 13579"))
    command = [sys.executable, "-m", "bncourse.cli", "grade", str(folder), "--assignment", str(assignment.path)]
    command += ["--out", str(tmp_path / "grades.csv"), "--jobs", "1"]
    environment = os.environ | {"TMPDIR": str(temporary)}
    first = subprocess.Popen([*command, "--seconds", "300"], env=environment, stdout=subprocess.PIPE, text=True)
    for line in first.stdout:
        if line.startswith("[1/2] a"):
            break
    wait_until_a_cell_runs(temporary)
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stdout.close()
    wait_until_gone(temporary)
    (left,) = temporary.iterdir()  # a kill gives no time to tidy up
    os.utime(left, (0, 0))
    second = subprocess.run([*command, "--seconds", "15"], env=environment, capture_output=True, text=True)
    assert second.returncode == 0 and "1 graded before" in second.stdout and "1 timeout" in second.stdout
    assert not list(temporary.iterdir())  # but a later run does


def test_an_interrupted_run_stops_its_workers(tmp_path, assignment):
    (tmp_path / "submissions").mkdir()
    (tmp_path / "submissions" / "a.ipynb").write_text(hostile.notebook("while True:\n    pass"))
    command = [sys.executable, "-m", "bncourse.cli", "grade", str(tmp_path / "submissions")]
    command += ["--assignment", str(assignment.path), "--out", str(tmp_path / "grades.csv"), "--seconds", "271"]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    wait_until_a_cell_runs(temporary)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130 and "picks up where it stopped" in errors
    wait_until_gone(temporary)
    assert not list(temporary.iterdir())


def test_retry_grades_what_did_not_end_well(tmp_path, assignment):
    folder, out = tmp_path / "submissions", tmp_path / "grades.csv"
    folder.mkdir()
    (folder / "a.ipynb").write_text(hostile.notebook(hostile.RIGHT, "import os\nos._exit(1)"))
    output = []
    for retry in (False, False, True):
        grade_folder(folder, assignment, out, limits=LIMITS, retry=retry, say=output.append)
    assert sum(line.startswith("[1/1] a ") for line in output) == 2


def test_without_isolation_a_plain_warning_and_the_same_scores(tmp_path, temporary, assignment, monkeypatch):
    monkeypatch.setattr("bncourse.grading.supervise.why_not_isolated", lambda: "this is a test")
    (tmp_path / "a.ipynb").write_text(hostile.notebook(hostile.RIGHT, hostile.LEAVE))
    output = []
    (record,) = grade_folder(tmp_path, assignment, tmp_path / "out" / "grades.csv", limits=LIMITS, say=output.append)
    assert (record.status, record.scores["signal"]) == ("ok", hostile.POINTS)
    assert any("not isolated here, because this is a test" in line for line in output)
    wait_until_gone(temporary)


def test_a_file_replaced_while_it_is_read_is_graded_as_it_was_read(tmp_path, assignment, monkeypatch):
    folder, out = tmp_path / "submissions", tmp_path / "grades.csv"
    folder.mkdir()
    notebook, right = folder / "a.ipynb", hostile.notebook(hostile.RIGHT)
    read_bytes = Path.read_bytes

    def read_and_replace(path):
        content = read_bytes(path)
        if path == notebook:
            notebook.write_text(hostile.notebook(hostile.WRONG))
        return content

    notebook.write_text(right)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", read_and_replace)
        grade_folder(folder, assignment, out, limits=LIMITS, say=lambda line: None)
    assert notebook.read_text() != right
    notebook.write_text(right)  # handed in again as it was: what the log says of it must be true of it
    (record,) = grade_folder(folder, assignment, out, limits=LIMITS, say=lambda line: None)
    assert record.scores["signal"] == hostile.POINTS


def test_a_failure_of_the_grader_costs_one_record(tmp_path, assignment, monkeypatch):
    monkeypatch.setattr("bncourse.grading.supervise.supervise", lambda *arguments: 1 / 0)
    (tmp_path / "a.ipynb").write_text(hostile.notebook(hostile.RIGHT))
    (record,) = grade_folder(tmp_path, assignment, tmp_path / "out" / "grades.csv", say=lambda line: None)
    assert record.status == "crashed" and "not the student's fault: ZeroDivisionError" in record.reason


class TestSubmissions:
    def test_checkpoints_and_hidden_folders_do_not_count(self, tmp_path, assignment):
        for name in ("anna/work.ipynb", "anna/.ipynb_checkpoints/work.ipynb", ".git/x.ipynb", "__x/y.ipynb"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("{}")
        assert [(s.student, s.path.name) for s in find_submissions(tmp_path, assignment)] == [
            ("__x", "y.ipynb"),
            ("anna", "work.ipynb"),
        ]

    def test_names_are_the_rosters_however_they_were_typed(self, tmp_path, assignment):
        (tmp_path / "Zoe\u0308.ipynb").write_text("{}")  # as a Mac packs it
        found = find_submissions(tmp_path, assignment, ["Zo\u00eb", "a/b"])
        assert [submission.student for submission in found] == ["Zo\u00eb", "a/b"]

    def test_the_digest_follows_the_code_and_nothing_else(self, tmp_path, assignment):
        cells = [("a", "x = 1"), ("b", "x = 1"), ("c", "x = 2")]
        for student, cell in cells:
            (tmp_path / f"{student}.ipynb").write_text(hostile.notebook(cell, metadata=student != "b"))
        a, b, c = (submission.digest for submission in find_submissions(tmp_path, assignment))
        assert a == b != c

    def test_pipes_and_enormous_files_are_not_read(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.ipynb")
        with open(tmp_path / "large.ipynb", "wb") as file:
            file.truncate(60 << 20)
        with pytest.raises(Unreadable, match="regular file"):
            read_notebook(tmp_path / "pipe.ipynb")
        with pytest.raises(Unreadable, match="larger than 50 MB"):
            read_notebook(tmp_path / "large.ipynb")

    def test_no_folder_is_an_error(self, tmp_path, assignment):
        with pytest.raises(NotADirectoryError, match="nowhere"):
            find_submissions(tmp_path / "nowhere", assignment)

    def test_only_code_cells_are_read(self, tmp_path):
        cells = [{"cell_type": "markdown", "source": "text"}, {"cell_type": "code", "source": ["a\n", "b"]}, 3]
        (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
        assert read_notebook(tmp_path / "a.ipynb") == ["a\nb"]

    @pytest.mark.parametrize("content", [b"", b"\xff", b"3", b'{"worksheets": []}', b"[" * 100_000])
    def test_what_is_not_a_notebook_is_unreadable(self, tmp_path, content):
        (tmp_path / "a.ipynb").write_bytes(content)
        with pytest.raises(Unreadable, match="not a notebook"):
            read_notebook(tmp_path / "a.ipynb")


class TestFiles:
    def test_an_unknown_assignment_names_those_there_are(self, tmp_path, assignment):
        (tmp_path / "ex-1").mkdir()
        (tmp_path / "ex-1" / "autograder.json").write_text(assignment.path.read_text())
        assert find_assignment("ex-1", tmp_path).name == "tiny"
        with pytest.raises(FileNotFoundError, match=r"\(ex-1\), got 'ex-2'"):
            find_assignment("ex-2", tmp_path)

    def test_a_log_survives_a_line_that_was_cut_off(self, tmp_path):
        log = Log(tmp_path / "grades.log")
        log.add(Record("anna", "anna.ipynb", "1", "ok"))
        log.path.write_text(log.path.read_text() + '\n{"student": "be')
        log.add(Record("carl", "carl.ipynb", "2", "timeout"))
        assert {record.student: record.status for record in log.read()} == {"anna": "ok", "carl": "timeout"}

    def test_only_what_is_older_than_a_day_is_removed(self, temporary):
        for name, age in (("young", DAY - 60), ("old", DAY + 60)):
            folder = temporary / f"{PREFIX}{name}"
            folder.mkdir()
            os.utime(folder, (time.time() - age, time.time() - age))
        remove_stale()
        assert [folder.name for folder in temporary.iterdir()] == [f"{PREFIX}young"]
        (temporary / f"{PREFIX}young").rmdir()

    def test_python_and_the_package_are_never_hidden(self, tmp_path):
        hidden = folders_to_hide(Path("/"), tmp_path / "autograder.json")
        assert Path("/") not in hidden and tmp_path.resolve() in hidden


class TestCommandLine:
    def test_errors_are_one_line(self, tmp_path, capsys):
        code = cli.main(["grade", str(tmp_path), "--assignment", "nothing", "--out", str(tmp_path / "grades.csv")])
        error = capsys.readouterr().err
        assert code == 2 and error.count("\n") == 1 and "assignment must be" in error and "got 'nothing'" in error

    @pytest.mark.parametrize("arguments", [["--help"], ["grade", "--help"]])
    def test_help(self, arguments, capsys):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert stop.value.code == 0 and "grade" in capsys.readouterr().out

    def test_a_commands_modules_wait_until_it_is_called(self):
        program = "import sys; from bncourse.cli import main; sys.exit('bncourse.grading' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", program]).returncode == 0
