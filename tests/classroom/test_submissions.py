"""Who handed in what: class lists in every encoding, and names as learning platforms and people give them."""

import io
import os
import zipfile
from datetime import datetime
from pathlib import Path

import pytest
from hostile_submissions import notebook

from bncourse import cli
from bncourse.grading.assignment import Assignment
from bncourse.grading.names import BadArgument, Roster, Student, read_roster
from bncourse.grading.report import Record, write_feedback, write_table
from bncourse.grading.submissions import LARGEST, find_submissions, ignored_files

WORK = Assignment("ex-07-work", (), Path("autograder.json"), "digest")
CANVAS_CSV = (
    "Student,ID,SIS User ID,SIS Login ID,Section,Ex 7 (123)\n"
    '    Points Possible,,,,,10\n"Doe, Jane",4711,u1,jdoe,A,\n"Núñez Ibarra, José",4712,u2,jnunez,A,\n'
    '"Müller, Zoë",4713,u3,zmueller,B,\n"Student, Test",4714,,x9,B,\n'
)
MOODLE_CSV = (
    "First name,Last name,ID number,Email address\nJane,Doe,u1,jane@uni.example\n"
    "José,Núñez Ibarra,u2,jose@uni.example\nZoë,Müller,u3,zoe@uni.example\n"
)


def put(folder, name, *cells, time=None):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(notebook(*(cells or ("x = 1",))))
    if time is not None:
        os.utime(path, (time, time))
    return path


def packed(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def found(folder, roster=None, **options):
    submissions = find_submissions(folder, WORK, roster or (), **options)
    return {submission.student: submission for submission in submissions}


def handed_in(folder, roster=None):
    return {name: one.cells for name, one in found(folder, roster).items()}


@pytest.fixture
def canvas(tmp_path):
    (tmp_path / "roster.csv").write_text(CANVAS_CSV, encoding="utf-8-sig")
    return Roster(read_roster(tmp_path / "roster.csv"))


@pytest.fixture
def moodle(tmp_path):
    (tmp_path / "roster.csv").write_text(MOODLE_CSV, encoding="utf-8")
    return Roster(read_roster(tmp_path / "roster.csv"))


class TestRoster:
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_every_encoding(self, tmp_path, encoding, end):
        path = tmp_path / "roster.txt"
        path.write_bytes(end.join(["Åsa Öberg", "", "François", ""]).encode(encoding))
        assert [student.name for student in read_roster(path)] == ["Åsa Öberg", "François"]

    def test_tables_of_platforms(self, canvas, moodle, tmp_path):
        assert list(canvas.students) == ["Doe, Jane", "Núñez Ibarra, José", "Müller, Zoë", "Student, Test"]
        assert list(moodle.students) == ["Jane Doe", "José Núñez Ibarra", "Zoë Müller"]
        assert canvas.students["Doe, Jane"].columns["SIS Login ID"] == "jdoe"
        (tmp_path / "excel.csv").write_bytes("Name;E-Mail\nAda;ada@x.example\n".encode("utf-16"))
        assert [student.name for student in read_roster(tmp_path / "excel.csv")] == ["Ada"]

    def test_a_name_is_found_in_every_form(self, canvas):
        for form in (
            "Doe, Jane",
            "doejane",
            "Jane Doe",
            "jane_doe",
            "JDOE",
            "4711",
            "homework of Jane Doe",
            "ex7-jdoe",
        ):
            assert canvas.find(form) == ["Doe, Jane"], form
        for form in ("nunezibarrajose", "José Núñez Ibarra", "Jose\u0301 Nu\u0301n\u0303ez Ibarra"):
            assert canvas.find(form) == ["Núñez Ibarra, José"], form
        assert canvas.find("Jane") == canvas.find("Doe") == canvas.find("joe") == []

    def test_two_of_one_name_are_told_apart_by_their_ids(self):
        pair = [Student("Kim Lee", {"ID": "7"}), Student("Kim Lee", {"ID": "8"})]
        roster = Roster(pair)
        assert list(roster.students) == ["Kim Lee", "Kim Lee (8)"] and roster.warnings
        assert roster.find("8", "kimlee") == ["Kim Lee (8)"] and roster.find("7") == ["Kim Lee"]

    def test_a_name_that_two_have_names_neither(self):
        roster = Roster([Student("Kim Lee", {"ID": "7"}), Student("Kim Lee", {"ID": "8"}), Student("Lee Kim")])
        assert roster.find("Kim Lee") == roster.find("kimlee") == [] and roster.find("Lee Kim") == ["Lee Kim"]
        again = [
            Student("Kim Lee", {"ID": "8", "Email": "k8@x.example"}),
            Student("Kim Lee", {"Email": "k7@x.example"}),
        ]
        roster = Roster(
            [Student("Kim Lee", {"ID": "7", "Email": "k7@x.example"}), Student("Kim Lee", {"ID": "8"}), *again]
        )
        assert list(roster.students) == ["Kim Lee", "Kim Lee (8)"]
        assert roster.find("k8@x.example") == ["Kim Lee (8)"] and roster.find("k7") == ["Kim Lee"]

    def test_a_second_list_adds_people_and_columns(self):
        roster = Roster([Student("Ada", {"ID": "1"}), Student("Bo"), Student("Ada", {"Email": "ada@x.example"})])
        assert list(roster.students) == ["Ada", "Bo"] and roster.find("ada@x.example") == roster.find("1") == ["Ada"]

    def test_what_is_no_list_is_said_in_a_line(self, tmp_path):
        (tmp_path / "empty.txt").write_bytes(b"\xef\xbb\xbf\r\n")
        for path in (tmp_path / "empty.txt", tmp_path / "nothing.txt", tmp_path):
            with pytest.raises(BadArgument, match=r"^roster must .*, got [^\n]*$"):
                read_roster(path)


MOODLE_PAIR = "{}_2004_assignsubmission_file_/ex-07-work.ipynb", "{}_2005_assignsubmission_file_/ex-07-work.ipynb"
CANVAS_PAIR = "{}_2004_9_ex-07-work.ipynb", "{}_LATE_2005_8_ex-07-work.ipynb"


class TestNamesakes:
    """Two students of one name never get one another's grade."""

    @pytest.mark.parametrize(
        ("names", "name", "person"),
        [(MOODLE_PAIR, "Jane Doe", "Participant 2004"), (CANVAS_PAIR, "doejane", "write 2004")],
    )
    def test_who_cannot_be_told_apart_has_a_row_of_their_own(self, tmp_path, names, name, person):
        for number, path in enumerate(names):
            put(tmp_path / "in", path.format(name), f"x = {number}")
        roster = Roster([Student("Jane Doe", {"Email": "m4"}), Student("Jane Doe", {"Email": "m5"})])
        rows = found(tmp_path / "in", roster)
        assert {one: row.cells for one, row in rows.items()} == {
            "Jane Doe": [], "Jane Doe (m5)": [], f"{name} (2004)": ["x = 0"], f"{name} (2005)": ["x = 1"],
        }  # fmt: skip
        note = rows[f"{name} (2004)"].note
        assert note.startswith("two students have this name") and person in note
        assert rows["Jane Doe"].problem == "no notebook was handed in" and "may be theirs" in rows["Jane Doe"].note

    def test_the_platforms_own_list_tells_them_apart(self, tmp_path):
        for names, name, column in ((MOODLE_PAIR, "Jane Doe", "Participant "), (CANVAS_PAIR, "doejane", "")):
            folder = tmp_path / name
            for number, path in enumerate(names):
                put(folder, path.format(name), f"x = {number}")
            pair = [Student("Jane Doe", {"Identifier": f"{column}{number}"}) for number in (2004, 2005)]
            assert handed_in(folder, Roster(pair)) == {
                "Jane Doe": ["x = 0"], f"Jane Doe ({column}2005)": ["x = 1"],
            }  # fmt: skip

    def test_without_a_roster_and_without_a_platform(self, tmp_path):
        for number, path in enumerate(MOODLE_PAIR):
            put(tmp_path / "in", path.format("Jane Doe"), f"x = {number}")
        put(tmp_path / "in", "Ada_7_assignsubmission_file_/ex-07-work.ipynb")
        assert list(handed_in(tmp_path / "in")) == ["Ada", "Jane Doe (2004)", "Jane Doe (2005)"]
        put(tmp_path / "plain", "Jane Doe.ipynb")
        pair = Roster([Student("Jane Doe", {"ID": "4"}), Student("Jane Doe", {"ID": "5"})])
        row = found(tmp_path / "plain", pair)["Jane Doe (Jane Doe.ipynb)"]
        assert row.cells == ["x = 1"] and "after the right student's id" in row.note

    def test_a_participants_number_is_not_somebody_elses_id(self, tmp_path):
        put(tmp_path / "in", MOODLE_PAIR[0].format("Jane Doe"))
        roster = Roster([Student("Bo Ek", {"ID number": "2004"}), Student("Jane Doe", {"ID number": "7"})])
        assert handed_in(tmp_path / "in", roster) == {"Bo Ek": [], "Jane Doe": ["x = 1"]}
        roster = Roster([Student("Jane Doe", {"ID number": "7"}), Student("Jane Doe", {"ID number": "2004"})])
        assert handed_in(tmp_path / "in", roster) == {
            "Jane Doe": [], "Jane Doe (2004)": [], "Jane Doe (Participant 2004)": ["x = 1"],
        }  # fmt: skip


class TestLayouts:
    def test_canvas(self, tmp_path, canvas):
        folder = tmp_path / "in"
        put(folder, "doejane_4711_90001_ex-07-work.ipynb", "old", time=2e9)
        put(folder, "doejane_LATE_4711_90005_ex-07-work-1.ipynb", "new", time=1e9)
        put(folder, "nunezibarrajose_4712_90002_My work (final).ipynb", "jose")
        put(folder, "mullerzoe_4713_90003_ex-07-work.ipynb", "zoe")
        one = found(folder, canvas)
        assert {name: submission.cells for name, submission in one.items()} == {
            "Doe, Jane": ["new"],
            "Núñez Ibarra, José": ["jose"],
            "Müller, Zoë": ["zoe"],
            "Student, Test": [],
        }
        assert one["Doe, Jane"].late and "last of 2 attempts" in one["Doe, Jane"].note
        assert one["Student, Test"].problem == "no notebook was handed in" and not one["Müller, Zoë"].late

    @pytest.mark.parametrize("flat", [False, True])
    def test_moodle(self, tmp_path, moodle, flat):
        join = "" if flat else "/"
        folder = tmp_path / "in"
        put(folder, f"Jane Doe_1234_assignsubmission_file_{join}solution.ipynb", "jane")
        put(folder, f"Zoë Müller_1235_assignsubmission_file_{join}ex-07-work.ipynb", "zoe")
        online = folder / f"José Núñez Ibarra_1236_assignsubmission_onlinetext_{join}onlinetext.html"
        online.parent.mkdir(exist_ok=True)
        online.write_text("<p>see file")
        assert handed_in(folder, moodle) == {"Jane Doe": ["jane"], "Zoë Müller": ["zoe"], "José Núñez Ibarra": []}
        assert set(handed_in(folder)) == {"Jane Doe", "Zoë Müller"} and not ignored_files(folder)

    def test_blackboard(self, tmp_path, canvas):
        folder = tmp_path / "in"
        put(folder, "Ex 7_jdoe_attempt_2026-03-02-09-00-00_b.ipynb", "new", time=1e9)
        put(folder, "Ex 7_jdoe_attempt_2026-03-01-09-00-00_a.ipynb", "old", time=2e9)
        (folder / "Ex 7_jdoe_attempt_2026-03-02-09-00-00.txt").write_text("Name: Jane Doe (jdoe)")
        one = found(folder, canvas)["Doe, Jane"]
        assert one.cells == ["new"] and one.time == datetime(2026, 3, 2, 9)

    def test_gradescope(self, tmp_path):
        folder = tmp_path / "assignment_9_export"
        put(folder, "submission_11/ex-07-work.ipynb", "pair")
        put(folder, "submission_12/ex-07-work.ipynb", "alone")
        (folder / "submission_metadata.yml").write_text(
            "---\nsubmission_11:\n  :submitters:\n  - :name: Ada Byron\n    :sid: 'a1'\n    :email: ada@x.example\n"
            "  - :name: Bo Ek\n    :sid: b2\n    :email: bo@x.example\n  :created_at: 2026-03-01 10:00:00.000000000 Z\n"
            "  :history: []\nsubmission_12:\n  :submitters:\n  - :name: Cy\n    :email: cy@x.example\n"
        )
        assert handed_in(folder) == {"Ada Byron": ["pair"], "Bo Ek": ["pair"], "Cy": ["alone"]}
        roster = Roster([Student("Byron, Ada", {"Email": "ada@x.example"}), Student("Ek, Bo", {"SID": "b2"})])
        one = found(folder, roster)
        assert one["Byron, Ada"].cells == one["Ek, Bo"].cells == ["pair"] and one["Cy"].note == "not on the roster"
        assert one["Ek, Bo"].time == datetime(2026, 3, 1, 10)

    def test_mail_and_hands(self, tmp_path, moodle):
        folder = tmp_path / "in"
        put(folder, "jane@uni.example/ex-07-work (2).ipynb", "jane")
        put(folder, "ex-07-work_zoe_müller.ipynb", "zoe")
        put(folder, "Jose Nunez Ibarra - homework.ipynb", "jose")
        assert handed_in(folder, moodle) == {"Jane Doe": ["jane"], "Zoë Müller": ["zoe"], "José Núñez Ibarra": ["jose"]}

    def test_groups(self, tmp_path):
        roster = Roster([Student("Ada", group="Team 1"), Student("Bo", group="Team 1"), Student("Cy", group="Team 2")])
        put(tmp_path, "Team 1.ipynb", "one")
        put(tmp_path, "Cy.ipynb", "two")
        assert handed_in(tmp_path, roster) == {"Ada": ["one"], "Bo": ["one"], "Cy": ["two"]}

    @pytest.mark.parametrize("name", ["WORK.IPYNB", "work.ipynb.json", "work.ipynb.txt", "work (1).ipynb"])
    def test_endings(self, tmp_path, name):
        put(tmp_path, f"ada/{name}", "ada")
        put(tmp_path, f"{name.replace('work', 'bo').replace('WORK', 'bo').replace(' (1)', '')}", "bo")
        assert handed_in(tmp_path) == {"ada": ["ada"], "bo": ["bo"]}

    def test_what_is_there_is_said(self, tmp_path):
        (tmp_path / "ada").mkdir()
        for number in range(7):
            (tmp_path / "ada" / f"{number}.pdf").write_text("x")
        (tmp_path / "bo.docx").write_text("x")
        one = found(tmp_path, Roster([Student("ada"), Student("bo")]))
        assert "only 0.pdf, 1.pdf, 2.pdf, 3.pdf, 4.pdf and 2 more" in one["ada"].problem
        assert one["bo"].problem.endswith("only bo.docx")


class TestAttempts:
    @pytest.mark.parametrize(
        ("names", "last"),
        [
            (["ex-07-work.ipynb", "ex-07-work (1).ipynb", "ex-07-work (2).ipynb"], "ex-07-work (2).ipynb"),
            (["ex-07-work.ipynb", "ex-07-work-Copy1.ipynb"], "ex-07-work-Copy1.ipynb"),
            (["EX-07-work.ipynb", "draft.ipynb", "notes.ipynb"], "EX-07-work.ipynb"),
            (["a/ex-07-work.ipynb", "b/ex-07-work.ipynb"], "ex-07-work.ipynb"),
        ],
    )
    def test_the_last_counts(self, tmp_path, names, last):
        for age, name in enumerate(names):
            put(tmp_path, f"ada/{name}", f"{age}", time=1e9 + age)
        one = found(tmp_path)["ada"]
        assert one.path.name == last and not one.problem
        assert ("attempts" in one.note) == (len([n for n in names if "work" in n]) > 1)

    def test_no_telling_which_is_said(self, tmp_path):
        put(tmp_path, "ada/a.ipynb"), put(tmp_path, "ada/b.ipynb")
        assert "2 notebooks; keep only one, or name one of them ex-07-work.ipynb" in found(tmp_path)["ada"].problem


class TestArchives:
    def test_of_one_student_and_of_the_class(self, tmp_path):
        inner = packed(**{"work__ex-07-work.ipynb": notebook("zipped"), "__MACOSX__._ex-07-work.ipynb": "junk"})
        folder = tmp_path / "in"
        put(folder, "ada/ex-07-work.ipynb", "plain")
        (folder / "bo.zip").write_bytes(inner)
        (folder / "cy").mkdir()
        (folder / "cy" / "all of it.zip").write_bytes(inner)
        expected = {"ada": ["plain"], "bo": ["zipped"], "cy": ["zipped"]}
        assert handed_in(folder) == expected
        everything = tmp_path / "class.zip"
        with zipfile.ZipFile(everything, "w") as archive:
            for path in folder.rglob("*"):
                archive.write(path, Path("download") / path.relative_to(folder))
        assert handed_in(everything) == expected

    def test_a_bomb_and_a_ruin_and_a_thief(self, tmp_path):
        (tmp_path / "bomb.zip").write_bytes(packed(**{"ex-07-work.ipynb": b"0" * (LARGEST + 10)}))
        ruin = packed(**{"ex-07-work.ipynb": notebook("x")})
        (tmp_path / "ruin.zip").write_bytes(ruin[:-30] + b"0" * 30)
        (tmp_path / "thief.zip").write_bytes(packed(**{"..__..__ex-07-work.ipynb": notebook("inside")}))
        one = found(tmp_path)
        assert "larger than 50 MB" in one["bomb"].problem and "ruin.zip" in one["ruin"].problem
        assert one["thief"].cells == ["inside"] and not (tmp_path.parent / "ex-07-work.ipynb").exists()

    def test_names_with_accents(self, tmp_path):
        path = tmp_path / "zoe.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("Übung/ex-07-work.ipynb", notebook("zoe"))
        content = path.read_bytes()
        path.write_bytes(content.replace(b"\x00\x08\x00\x00", b"\x00\x00\x00\x00"))  # not said to be UTF-8
        assert handed_in(tmp_path) == {"zoe": ["zoe"]}


class TestOurOwnFiles:
    def test_they_are_nobody(self, tmp_path):
        put(tmp_path, "ada.ipynb", "ada")
        put(tmp_path, "__MACOSX/ada/._ada.ipynb")
        record = Record("ada", "ada.ipynb", "1", "ok")
        write_table(tmp_path / "grades.csv", [record], WORK)
        write_feedback(tmp_path / "other-feedback", record, WORK)
        assert handed_in(tmp_path) == {"ada": ["ada"]}
        assert ignored_files(tmp_path, [tmp_path / "grades.csv"]) == []

    def test_the_table_opens_in_excel(self, tmp_path):
        write_table(tmp_path / "grades.csv", [Record("Zoë", "", "1", "ok")], WORK)
        assert (tmp_path / "grades.csv").read_bytes().startswith("\ufeffstudent,".encode())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--jobs", "-2"], "jobs must be at least 1, got -2"),
        (["--jobs", "0"], "jobs must be at least 1, got 0"),
        (["--seconds", "0.5"], "seconds must be at least 1, got 0.5"),
        (["--seconds", "nan"], "seconds must be at least 1, got nan"),
        (["--seconds", "inf"], "seconds must be at least 1, got inf"),
        (["--megabytes", "0"], "megabytes must be at least 500, got 0"),
        (["--roster", "nobody.txt"], "roster must be a text file or a CSV, got nobody.txt: No such file or directory"),
    ],
)
def test_numbers_and_files_of_the_command_line(tmp_path, capsys, arguments, error):
    common = ["grade", str(tmp_path), "--assignment", "x", "--out", str(tmp_path / "grades.csv")]
    assert cli.main([*common, *arguments]) == 2
    assert capsys.readouterr().err == error + "\n"
    assert not (tmp_path / "grades.csv").exists()
