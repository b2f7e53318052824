"""What people type into the grader's files survives, and counts; what a class understood is said without names."""

import csv
import json
from datetime import datetime
from pathlib import Path

import pytest
from hostile_submissions import notebook

from bncourse import cli
from bncourse.grading import Limits, grade_folder
from bncourse.grading.assignment import Assignment, Explanation, Question
from bncourse.grading.class_report import fingerprint, write_report
from bncourse.grading.desk import Deadline
from bncourse.grading.names import BadArgument, did_you_mean
from bncourse.grading.report import Outcome, Record
from bncourse.grading.submissions import Submission
from bncourse.grading.typed import explanation, read_table

PROMPT = "**Explain it.** Below this line.\n\n---\n"
TINY = {
    "name": "tiny",
    "questions": [
        {
            "name": "signal",
            "points": 2.0,
            "all_or_nothing": False,
            "cases": [
                {
                    "name": "30 layers, gain 0.5: the signal vanishes",
                    "hidden": False,
                    "points": 2.0,
                    "source": "def f(output_std):\n    from bncourse.exercises import run_case\n"
                    "    run_case('signal', '30 layers, gain 0.5: the signal vanishes', output_std)",
                }
            ],
            "explanation": {"points": 2.0, "prompt": PROMPT, "rubric": "Who?", "good": "All.", "weak": "None."},
        },
    ],
}
RIGHT, WRONG = "def output_std(gain, depth):\n    return gain**depth", "def output_std(g, d):\n    return g * d"
CHECK = 'check("signal", output_std)'


def written(*cells, text="It vanishes; 30 layers show it.", check=CHECK):
    """A notebook with an explanation where the prompt is."""
    content = json.loads(notebook(*cells, "from bncourse.exercises import check", check))
    content["cells"].append({"cell_type": "markdown", "source": PROMPT + "\n" + text, "metadata": {}})
    content["cells"].append({"cell_type": "markdown", "source": "## 2. Another\n\nNot theirs.", "metadata": {}})
    return json.dumps(content)


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """A class of six, graded once; each test grades a copy of it again, which takes no processes."""
    base = tmp_path_factory.mktemp("class")
    (base / "private").mkdir()
    (base / "private" / "autograder.json").write_text(json.dumps(TINY))
    folder = base / "submissions"
    folder.mkdir()
    (folder / "Ada.ipynb").write_text(written(RIGHT))
    (folder / "Bo.ipynb").write_text(written(WRONG, text=""))
    (folder / "Cy.ipynb").write_text(written(WRONG.replace("g", "x"), text="=1+1 is a formula, and “quoted”"))
    (folder / "Di.ipynb").write_text(written(RIGHT.replace("output_std", "my_std"), check='check("signal", my_std)'))
    (folder / "Ed.ipynb").write_text(notebook("class Sleepless: pass", 'check("zoo-mode", Sleepless)'))
    (folder / "Flo.ipynb").write_text(written("output_std = ..."))
    return base, grade(base)


def grade(base, **options):
    said = []
    assignment = Assignment.read(base / "private" / "autograder.json")
    records = grade_folder(
        base / "submissions", assignment, base / "out" / "grades.csv", limits=Limits(30, 3000), jobs=2, say=said.append,
        **options,
    )  # fmt: skip
    return {record.student: record for record in records}, said


def sheet(base, name="grades-explanations.csv"):
    return {row["student"]: row for row in read_table(base / "out" / name, ["student"])}


def save(path, rows, encoding="utf-8-sig", delimiter=","):
    """Save as a spreadsheet does."""
    with open(path, "w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def test_explanations_are_collected_counted_and_kept(graded):
    base, (records, _) = graded
    rows = sheet(base)
    assert rows["Ada"]["text"] == "It vanishes; 30 layers show it." and rows["Ada"]["possible"] == "2.0"
    assert rows["Cy"]["text"].startswith("'=1+1") and rows["Bo"]["note"].startswith("none was found below *Explain it*")
    assert rows["Ada"]["rubric"] == "Who?" and rows["Ada"]["full"] == "All."
    assert records["Ada"].score == 2 and records["Ada"].explained == {"signal": None}
    assert records["Bo"].explained == {"signal": 0.0}
    rows["Ada"] |= {"points": "1,5", "comment": "Good, but when?", "my column": "x"}
    rows["Cy"]["points"] = "7"
    save(base / "out" / "grades-explanations.csv", list(rows.values()), "utf-16", ";")
    (base / "submissions" / "Ada.ipynb").write_text(written(RIGHT, text="Another text."))
    for _ in range(2):  # a second run changes nothing more
        again, said = grade(base)
        assert again["Ada"].score == 3.5 and again["Cy"].score == 0
        assert any("points of Cy for signal must be between 0 and 2, got '7'" in line for line in said)
        row = sheet(base)["Ada"]
        assert (row["points"], row["comment"], row["my column"]) == ("1,5", "Good, but when?", "x")
        assert row["text"] == "Another text." and "changed" in row["note"]
    assert "Good, but when?" in (base / "out" / "grades-feedback" / "Ada.md").read_text()


def test_what_is_typed_into_the_table_counts_from_then_on(graded):
    base, _ = graded
    table = base / "out" / "grades.csv"
    grade(base)
    rows = read_table(table, ["student"])
    for row in rows:
        row["my remark"] = f"talk to {row['student']}"
        if row["student"] == "Bo":
            row["signal"] = "1.25"
    save(table, rows, "cp1252", ";")
    again, said = grade(base)
    assert again["Bo"].score == 1.25 and any("1 score typed into it went to" in line for line in said)
    assert sheet(base, "grades.csv")["Bo"]["my remark"] == "talk to Bo"
    (row,) = read_table(base / "out" / "grades-overrides.csv", ["student"])
    assert (row["student"], row["exercise"], row["points"]) == ("Bo", "signal", "1.25")
    assert len(list((base / "out").glob("grades-edited-*.csv"))) == 1
    assert grade(base)[0]["Bo"].score == 1.25 and len(list((base / "out").glob("grades-edited-*.csv"))) == 1


def typed_into(base, name, **cells):
    """Grade, type into a row of the table, and grade again; what was said, and the row."""
    table = base / "out" / "grades.csv"
    grade(base)
    rows = read_table(table, ["student"])
    for row in rows:
        row |= cells if row["student"] == name else {}
    save(table, rows)
    _, said = grade(base)
    return "\n".join(said), sheet(base, "grades.csv").get(name)


def test_what_the_grader_writes_itself_is_not_taken_over_and_that_is_said(graded):
    base, _ = graded
    said, row = typed_into(base, "Cy", score="5")
    assert "typed into score for Cy was not carried over: use an exercise's column" in said and row["score"] == "0.0"
    said, _ = typed_into(base, "Cy", explanations="1", note="He was ill.")
    assert "explanations for Cy was not carried over: use the column points of grades-explanations.csv" in said
    assert "typed into note for Cy was not carried over: use a column of your own" in said
    said, _ = typed_into(base, "Cy", signal="absent")
    assert "signal typed for Cy must be a number, got 'absent': not carried over" in said
    said, _ = typed_into(base, "Cy", student="Cyn")
    assert "the row of 'Cyn' was not carried over; did you mean 'Cy'?" in said
    said, _ = typed_into(base, "Cy", score="0,00", seconds="")  # as a spreadsheet may write it
    assert "carried over" not in said


def test_rows_for_nobody_and_points_beyond_the_exercise_are_said(graded):
    base, _ = graded
    path = base / "out" / "grades-overrides.csv"
    content = path.read_bytes()
    rows = [("Flow", "2"), ("Nobody, Ned", "2"), ("Ada", "3"), ("Ed", "-1")]
    save(path, [{"student": s, "exercise": "signal", "points": p, "comment": ""} for s, p in rows])
    records, said = grade(base)
    text = "\n".join(said)
    assert "grades-overrides.csv: no student is called 'Flow'; did you mean 'Flo'?" in text
    assert "no student is called 'Nobody, Ned'\n" in f"{text}\n" and records["Ada"].score <= 4
    for student, got in (("Ada", "3"), ("Ed", "-1")):
        assert f"points of {student} for the code of signal must be between 0 and 2, got {got}: not counted" in text
    path.write_bytes(content)
    assert not any("no student is called" in line for line in grade(base)[1])


def test_names_that_may_be_meant():
    names = ["Fischer, Franz", "Green, Gina", "Öz, Ada"]
    assert did_you_mean("Fischer", names) == "; did you mean 'Fischer, Franz'?"
    assert did_you_mean("Gina Green", names) == "; did you mean 'Green, Gina'?"
    assert did_you_mean("Gina Gren", names) == "; did you mean 'Green, Gina'?"
    assert did_you_mean("ada oez", names) == "; did you mean 'Öz, Ada'?" and did_you_mean("Nobody, Ned", names) == ""


def test_pages_say_once_what_holds_for_the_whole_set(graded):
    base, _ = graded
    pages = {path.stem: path.read_text() for path in (base / "out" / "grades-feedback").glob("*.md")}
    assert "It defines none of the answers" in pages["Ed"] and "##" not in pages["Ed"]
    assert "your explanation: none was found below *Explain it*, 0 of 2 points" in pages["Bo"]
    assert "none was found" not in pages["Ada"]


def test_a_page_that_somebody_edited_is_kept(graded):
    base, _ = graded
    page = base / "out" / "grades-feedback" / "Bo.md"
    page.write_text(page.read_text() + "\nCome and see me.\n")
    grade(base)
    assert "Come and see me" in page.with_suffix(".edited.md").read_text() and "Come" not in page.read_text()


def test_a_file_that_cannot_be_read_is_not_overwritten(graded):
    base, _ = graded
    path = base / "out" / "grades-overrides.csv"
    content = path.read_bytes()
    path.write_text("name,mark\nAda,5\n")
    with pytest.raises(BadArgument, match="must have the columns student, exercise, points, comment, got name, mark"):
        grade(base)
    assert path.read_text() == "name,mark\nAda,5\n"
    path.write_bytes(content)


def test_another_sets_table_is_not_overwritten(graded):
    base, _ = graded
    other = json.loads((base / "private" / "autograder.json").read_text())
    other["questions"][0]["name"] = "standardize"
    other["name"] = "other"
    (base / "private" / "other.json").write_text(json.dumps(other))
    with pytest.raises(BadArgument, match=r"out must be the table of other, got .* with signal"):
        grade_folder(
            base / "submissions", Assignment.read(base / "private" / "other.json"), base / "out" / "grades.csv"
        )


def test_a_zero_has_its_reason(graded):
    base, _ = graded
    rows = sheet(base, "grades.csv")
    assert "signal: the notebook checks my_std, but defines no output_std" in rows["Di"]["note"]
    assert "this looks like a different set: ex-04-bug-zoo" in rows["Ed"]["note"]
    assert "no exercise is answered" in rows["Flo"]["note"]
    assert rows["Ada"]["note"] == ""


def test_the_class_report(graded):
    base, _ = graded
    grade(base)
    page = (base / "out" / "grades-report.html").read_text()
    assert "2 of 6 were told in How far does a signal get? (signal)" in page and "gain ** depth" in page
    assert "Bo, Cy" in page and "30 layers, gain 0.5" in page and "Whom to talk to" in page
    grade(base, anonymous=True)
    page = (base / "out" / "grades-report.html").read_text()
    assert "student 1" in page and not any(f"{name}" in page for name in ("Ada", "Bo,", "Cy<", "Di:", "Ed:", "Flo"))


def test_notebooks_are_alike_whatever_the_names():
    one = "def f(x):\n    '''Text.'''\n    return x + 1  # why"
    assert (
        fingerprint([one]) == fingerprint(["def g(value):\n    return value+1"]) != fingerprint(["def f(x): return x"])
    )


@pytest.mark.parametrize(
    ("time", "words", "cost"),
    [
        (datetime(2026, 3, 1, 22), "", 0.0),
        (datetime(2026, 3, 2, 0, 1), "1 day", 0.0),
        (datetime(2026, 3, 3, 12), "2 days", 0.1),
        (datetime(2026, 9, 1), "184 days", 1.0),
        (None, "", 0.0),
    ],
)
@pytest.mark.parametrize("due", ["2026-03-01T23:59", "2026-03-01"])
def test_late_days(due, time, words, cost):
    deadline = Deadline.read(due, 1, 10)
    assert deadline.judge(Submission("Ada", None, [], "", "", time=time)) == (words, pytest.approx(cost))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--due", "Friday"], "due must be a time such as 2026-03-01T23:59, got 'Friday'"),
        (["--due", "2026-03-01T23:59Z"], "due must be a time such as 2026-03-01T23:59, got '2026-03-01T23:59Z'"),
        (["--late-days", "-1"], "late-days must be at least 0, got -1"),
        (["--late-penalty", "101"], "late-penalty must be between 0 and 100, got 101"),
    ],
)
def test_bad_deadlines(tmp_path, graded, capsys, arguments, error):
    base, _ = graded
    out = ["--out", str(tmp_path / "grades.csv"), "--assignment", str(base / "private" / "autograder.json")]
    assert cli.main(["grade", str(base / "submissions"), *out, *arguments]) == 2
    assert capsys.readouterr().err == error + "\n" and not Path(tmp_path / "grades.csv").exists()


def test_penalties_that_are_not_taken_are_said():
    late = [Submission(name, None, [], "", "", late=True) for name in ("Ada", "Bo")]
    on_time = Submission("Cy", None, [], "", "")
    due = Deadline.read("2026-03-01", 0, 10)
    (said,) = due.warnings([*late, on_time])
    assert said == "2 submissions are marked late but without a time, so there is no penalty; use the overrides"
    assert due.warnings([on_time]) == Deadline.read("2026-03-01", 0, 0).warnings(late) == []
    said = Deadline.read(None, 0, 10).warnings(late[:1])
    assert said[0].startswith("late-penalty needs due") and said[1].startswith("1 submission is")


def record(name, score, **details):
    return Record(name, "", "", "ok", scores={"signal": score}, **details)


def test_the_report_counts_what_was_answered(tmp_path, graded):
    base, _ = graded
    assignment = Assignment.read(base / "private" / "autograder.json")
    failed, undefined = [Outcome(False, "wrong")], [Outcome(False, "the notebook does not define output_std")]
    scores = {"A": 0, "B": 0, "C": 0.5, "D": 6.5, "E": 10, "F": 19.5}
    records = [record(name, score, outcomes={"signal": failed}) for name, score in scores.items()]
    records[0].unchanged, records[1].outcomes = ["signal"], {"signal": undefined}
    records[5].note = "the last of 2 attempts: F.ipynb"
    write_report(tmp_path / "report.html", records, [], assignment)
    page = (tmp_path / "report.html").read_text()
    assert "median 3.5 of 4 points" in page and "6 students (6 ok)" in page
    assert '<td class="number">4</td></tr></table>' in page.split("Which cases failed")[1].split("<h2>")[0]
    assert (
        "answers of more than one student; see which cases failed" in page
        and "attempts" not in page.split("talk to")[1]
    )


def test_explanations_are_found_where_students_write_them():
    texts = [("code", "check( 'signal', f)"), ("markdown", PROMPT), ("raw", "mine"), ("markdown", "and more")]
    signal = Question("signal", 1.0, False, (), Explanation(1.0, PROMPT))
    assert explanation([*texts, ("markdown", "## 3. Next"), ("markdown", "no")], signal) == "mine\nand more"
    assert explanation([("markdown", PROMPT + "mine")], signal) == ""
