"""One gradebook, the platforms' files, and Gradescope's zip in a folder laid out as there, without the course."""

import csv
import json
import os
import subprocess
import sys
import zipfile

import pytest
from hostile_submissions import notebook
from test_desk import RIGHT, TINY, written

from bncourse import cli
from bncourse.grading.assignment import find_assignment


@pytest.fixture
def tables(tmp_path):
    for name, scores in (("ex-01", {"Doe, Jane": 9.5, "Zoë": 3, "Max": 1}), ("ex-02", {"Doe, Jane": 4})):
        with open(tmp_path / f"{name}.csv", "w", encoding="utf-8-sig", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["student", "status", "score", "possible"])
            writer.writerows([student, "ok", score, 10] for student, score in scores.items())
    return [str(tmp_path / "ex-01.csv"), str(tmp_path / "ex-02.csv")]


def rows(path):
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_one_gradebook(tmp_path, tables):
    assert cli.main(["gradebook", *tables, "--out", str(tmp_path / "all.csv")]) == 0
    found = {
        row["student"]: (row["ex-01"], row["ex-02"], row["total"], row["possible"])
        for row in rows(tmp_path / "all.csv")
    }
    assert found["Doe, Jane"] == ("9.5", "4.0", "13.5", "20.0") and found["Max"] == ("1.0", "", "1.0", "20.0")


@pytest.mark.parametrize(
    ("platform", "roster", "columns", "first"),
    [
        (
            "canvas",
            'Student,ID,SIS Login ID,Section\n"Doe, Jane",11,jdoe,A\nZoë,12,zoe,A\n',
            ["Student", "ID", "SIS Login ID", "Section", "ex-01", "ex-02"],
            ["    Points Possible", "", "", "", "10.0", "10.0"],
        ),
        (
            "moodle",
            "First name,Last name,Email address\nJane,Doe,j@x.example\nZoë,,z@x.example\n",
            ["First name", "Last name", "Email address", "ex-01", "ex-02"],
            ["Jane", "Doe", "j@x.example", "", ""],
        ),
        (
            "blackboard",
            "Last Name,First Name,Username,Student ID\nDoe,Jane,jdoe,7\n,Zoë,zoe,8\n",
            ["Last Name", "First Name", "Username", "Student ID", "ex-01", "ex-02"],
            ["Doe", "Jane", "jdoe", "7", "", ""],
        ),
    ],
)
def test_platforms(tmp_path, tables, capsys, platform, roster, columns, first):
    (tmp_path / "roster.csv").write_text(roster, encoding="utf-8")
    out = ["--out", str(tmp_path / "upload.csv"), "--platform", platform, "--roster", str(tmp_path / "roster.csv")]
    assert cli.main(["gradebook", *tables, *out]) == 0
    found = rows(tmp_path / "upload.csv")
    assert list(found[0]) == columns and list(found[0].values()) == first
    assert [row["ex-01"] for row in found][-1] == "3.0" and "Max has a score" in capsys.readouterr().out


def test_zeros_that_nobody_earned_are_said(tmp_path, capsys):
    (tmp_path / "Exercises 4 (77).csv").write_text(
        "student,status,score,possible,note\nAda,ok,3,10,9 explanations are not graded yet\n"
        "Bo,ok,3,10,on the roster; 1 explanation is not graded yet\nCy,missing,0,10,\n"
    )
    (tmp_path / "roster.csv").write_text("Student,ID\nAda,1\nBo,2\nCy,3\n")
    platform = ["--platform", "canvas", "--roster", str(tmp_path / "roster.csv")]
    for options in ([], platform):
        out = ["--out", str(tmp_path / "all.csv"), *options]
        assert cli.main(["gradebook", str(tmp_path / "Exercises 4 (77).csv"), *out]) == 0
        said = capsys.readouterr().out
        assert "Exercises 4 (77): 10 explanations are not graded yet: 0 points" in said
        assert "0 points where nothing was handed in: Cy" in said
    assert list(rows(tmp_path / "all.csv")[0]) == ["Student", "ID", "Exercises 4 (77)"]


def test_errors_of_the_gradebook(tmp_path, tables, capsys):
    for arguments, words in (
        ([tables[0], tables[0]], "tables must have different names"),
        ([str(tmp_path / "none.csv")], "tables must be files that `bncourse grade` made"),
        ([*tables, "--platform", "canvas"], "roster must be the class list that canvas exports"),
    ):
        assert cli.main(["gradebook", *arguments, "--out", str(tmp_path / "all.csv")]) == 2
        assert words in capsys.readouterr().err and not (tmp_path / "all.csv").exists()


def test_an_assignment_is_found_by_its_beginning(tmp_path):
    for name in ("ex-01-a", "ex-02-b", "ex-02-c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "autograder.json").write_text(json.dumps(TINY | {"name": name}))
    assert find_assignment("ex-01", tmp_path).name == "ex-01-a"
    with pytest.raises(FileNotFoundError, match="ex-01-a, ex-02-b, ex-02-c"):
        find_assignment("ex-02", tmp_path)


@pytest.fixture(scope="module")
def gradescope(tmp_path_factory):
    """/autograder as Gradescope lays it out, from the zip alone."""
    base = tmp_path_factory.mktemp("gradescope")
    (base / "autograder.json").write_text(json.dumps(TINY))
    command = ["autograder", "--assignment", str(base / "autograder.json"), "--out", str(base / "autograder.zip")]
    assert cli.main(command) == 0
    root = base / "autograder"
    with zipfile.ZipFile(base / "autograder.zip") as archive:
        names = set(archive.namelist())
        archive.extractall(root / "source")
    assert {"setup.sh", "run_autograder", "autograder.json", "bncourse/__init__.py"} <= names
    return root


@pytest.mark.parametrize(
    ("files", "score", "words"),
    [
        ({"My work.ipynb": written(RIGHT), "notes.txt": "x"}, 2.0, "worth 2 more points"),
        ({"answer.pdf": "x"}, 0.0, "answer.pdf"),
        ({"tiny.ipynb": notebook(RIGHT, "import os\nos._exit(1)")}, 0.0, "ended before"),
    ],
)
def test_gradescopes_zip_runs_without_the_course(gradescope, files, score, words):
    submission = gradescope / "submission"
    submission.mkdir(exist_ok=True)
    for old in submission.iterdir():
        old.unlink()
    for name, content in files.items():
        (submission / name).write_text(content)
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment = kept | {"AUTOGRADER": str(gradescope), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    run = ["bash", str(gradescope / "source" / "run_autograder")]
    done = subprocess.run(run, env=environment, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads((gradescope / "results" / "results.json").read_text())
    assert results["score"] == score == sum(test["score"] for test in results["tests"])
    assert words in json.dumps(results) and results["tests"][0]["max_score"] == 2.0
