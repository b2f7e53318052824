"""What a semester needs: the best of several attempts, an edition that stays, a quiz for each class, and forgetting."""

import json
import math
import re
import subprocess
import sys

import pytest
import torch
from exercise_sets import ROOT
from test_desk import PROMPT, RIGHT, TINY, WRONG, grade, graded, sheet, written  # noqa: F401 (a fixture)
from torch import nn
from torch.nn import functional as F

from bncourse import cli
from bncourse.exercises.quiz import QUESTIONS, questions
from bncourse.grading.assignment import Assignment
from bncourse.grading.class_report import unchanged
from bncourse.grading.edition import write_edition
from bncourse.grading.names import BadArgument
from bncourse.grading.submissions import find_submissions
from bncourse.grading.typed import read_table


def canvas(student, serial):
    return f"{student}_11_{serial}_tiny-{serial}.ipynb"


def test_the_best_of_several_attempts_counts(tmp_path):
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "autograder.json").write_text(json.dumps(TINY))
    folder = tmp_path / "submissions"
    folder.mkdir()
    for serial, code in enumerate((WRONG, RIGHT, WRONG.replace("g", "x")), 101):
        (folder / canvas("ada", serial)).write_text(written(code))
    last, _ = grade(tmp_path)
    assert last["ada"].scores["signal"] == 0.0 and "last of 3" in last["ada"].note
    best, said = grade(tmp_path, attempts="best")
    assert best["ada"].scores["signal"] == 2.0 and "best of 3 attempts: ada_11_102" in best["ada"].note
    assert sheet(tmp_path, "grades.csv")["ada"]["file"].endswith("ada_11_102_tiny-102.ipynb")
    assert any("1 student, 1 graded before" in line for line in said)
    again, said = grade(tmp_path, attempts="best")
    assert again["ada"].scores == best["ada"].scores and any("3 graded before" in line for line in said)


def test_every_attempt_is_found_in_order(tmp_path):
    (tmp_path / "autograder.json").write_text(json.dumps(TINY))
    (tmp_path / "all").mkdir()
    for serial in (9, 10, 101):
        (tmp_path / "all" / canvas("ada", serial)).write_text(written(f"{RIGHT}\n# {serial}"))
    assignment = Assignment.read(tmp_path / "autograder.json")
    found = find_submissions(tmp_path / "all", assignment, every=True)
    assert [one.path.name.split("_")[2] for one in found] == ["9", "10", "101"]
    assert len({one.key for one in found}) == 3


class TestPartOfASet:
    @pytest.fixture
    def two(self, tmp_path):
        questions = [TINY["questions"][0], TINY["questions"][0] | {"name": "standardize", "points": 3.0}]
        (tmp_path / "autograder.json").write_text(json.dumps(TINY | {"questions": questions}))
        (tmp_path / "submissions").mkdir()
        (tmp_path / "roster.txt").write_text("Ada\n")
        given = ["--assignment", str(tmp_path / "autograder.json"), "--roster", str(tmp_path / "roster.txt")]
        return ["grade", str(tmp_path / "submissions"), *given, "--out", str(tmp_path / "grades.csv")]

    @pytest.mark.parametrize(("options", "possible"), [([], 9), (["--exercises", "signal"], 4)])
    def test_counts_what_was_assigned(self, tmp_path, two, options, possible):
        assert cli.main([*two, *options]) == 0
        (row,) = read_table(tmp_path / "grades.csv", ["student"])
        assert float(row["possible"]) == possible and ("standardize" in row) == (not options)

    def test_names_an_exercise_that_is_not_in_the_set(self, tmp_path, two, capsys):
        assert cli.main([*two, "--exercises", "signal,evaluate"]) == 2
        assert capsys.readouterr().err == "exercises must be some of signal, standardize, got evaluate\n"
        assert not (tmp_path / "grades.csv").exists()

    def test_is_graded_again_when_it_changes(self, tmp_path, two):
        whole = Assignment.read(tmp_path / "autograder.json")
        digests = {part.digest for part in (whole, whole.only(["signal"]), whole.only(["standardize"]))}
        assert len(digests) == 3 and whole.only(["standardize", "signal"]).questions == whole.questions


class TestUnchanged:
    GIVEN = "class Dizzy:\n    '''A layer.'''\n\n    def forward(self, x):\n        return x + 1"

    def assignment(self, tmp_path):
        question = TINY["questions"][0] | {"given": [self.GIVEN]}
        (tmp_path / "autograder.json").write_text(json.dumps(TINY | {"questions": [question]}))
        return Assignment.read(tmp_path / "autograder.json")

    @pytest.mark.parametrize(
        ("cells", "same"),
        [
            ([GIVEN], True),
            (["x = 1", GIVEN.replace("        return", "        # I wonder\n        return")], True),
            ([GIVEN.replace("+ 1", "+ 2")], False),
            ([GIVEN, GIVEN.replace("+ 1", "+ 2")], False),  # fixed in a cell of its own
            ([GIVEN.replace("Dizzy", "Other")], False),
            (["def broken(:"], False),
        ],
    )
    def test_is_what_students_got(self, tmp_path, cells, same):
        assert unchanged(cells, self.assignment(tmp_path)) == ["signal"] * same

    def test_a_creature_that_nobody_touched_is_no_misconception(self, tmp_path):
        given = WRONG.replace("g, d", "gain, depth").replace("g * d", "gain * depth")
        (tmp_path / "private").mkdir()
        question = TINY["questions"][0] | {"given": [given]}
        (tmp_path / "private" / "autograder.json").write_text(json.dumps(TINY | {"questions": [question]}))
        (tmp_path / "submissions").mkdir()
        for name, code in (("Ada", given), ("Bo", f"{given}  # hm"), ("Cy", WRONG)):
            (tmp_path / "submissions" / f"{name}.ipynb").write_text(written(code))
        records, _ = grade(tmp_path)
        assert records["Ada"].outcomes["signal"][0].hint == records["Cy"].outcomes["signal"][0].hint != ""
        report = (tmp_path / "out" / "grades-report.html").read_text()
        assert (
            "No misconception was recognized in the answers of more than one student; see which cases failed." in report
        )
        assert '<td class="number">1</td></tr></table>' in report.split("Misconceptions that")[1]
        assert "no exercise is answered" in records["Ada"].note and not records["Cy"].note


def test_forgetting_a_student_leaves_no_trace_and_the_others(graded, tmp_path):  # noqa: F811
    import shutil

    base = tmp_path / "class"
    shutil.copytree(graded[0], base)
    grade(base)
    table = base / "out" / "grades.csv"
    before = sheet(base, "grades.csv")
    assert cli.main(["forget", "Cy", str(table)]) == 0
    for path in (base / "out").rglob("*"):
        assert "Cy" not in path.name
        assert path.is_dir() or not re.search(r"\bCy\b", path.read_text(encoding="utf-8-sig")), path
    assert sheet(base, "grades.csv") == {name: row for name, row in before.items() if name != "Cy"}
    assert (base / "submissions" / "Cy.ipynb").exists()
    (base / "submissions" / "Cy.ipynb").unlink()
    records, said = grade(base)
    assert set(records) == {*before} - {"Cy"} and any("5 graded before" in line for line in said)


def test_forgetting_nobody_is_said(graded, capsys):  # noqa: F811
    assert cli.main(["forget", "Zoe", str(graded[0] / "out" / "grades.csv")]) == 2
    assert capsys.readouterr().err.endswith("who is in none\n")
    assert cli.main(["forget", "Adda", str(graded[0] / "out" / "grades.csv")]) == 2
    assert "did you mean 'Ada'?" in capsys.readouterr().err


class TestEdition:
    def test_grades_with_the_checks_that_it_was_made_with(self, tmp_path, monkeypatch):
        """The course's own check is changed afterwards: the edition still has the old one."""
        course = tmp_path / "course"
        made = course / "instructor" / "_build" / "tiny"
        made.mkdir(parents=True)
        (made / "autograder.json").write_text(json.dumps(TINY))
        write_edition(tmp_path / "spring.zip", course)
        changed = TINY["questions"][0]["cases"][0] | {"source": "def f(output_std):\n    assert False"}
        question = TINY["questions"][0] | {"cases": [changed]}
        (made / "autograder.json").write_text(json.dumps(TINY | {"questions": [question]}))
        (tmp_path / "submissions").mkdir()
        (tmp_path / "submissions" / "Ada.ipynb").write_text(written(RIGHT))
        monkeypatch.chdir(course)
        arguments = ["grade", str(tmp_path / "submissions"), "--assignment", "tiny", "--jobs", "1"]
        arguments += ["--edition", str(tmp_path / "spring.zip"), "--out", str(tmp_path / "grades.csv"), "--anonymous"]
        program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from bncourse.cli import main"
        program += f"; sys.exit(main({arguments!r}))"
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        (row,) = read_table(tmp_path / "grades.csv", ["student"])
        assert float(row["signal"]) == 2.0 and "Edition: bncourse" in ran.stdout
        assert "Ada" not in (tmp_path / "grades-report.html").read_text()  # options are passed on

    def test_what_is_no_edition_is_said(self, tmp_path, capsys):
        (tmp_path / "other.zip").write_text("no zip")
        arguments = ["grade", str(tmp_path), "--assignment", "tiny", "--out", str(tmp_path / "grades.csv")]
        assert cli.main([*arguments, "--edition", str(tmp_path / "other.zip")]) == 2
        assert "edition must be" in capsys.readouterr().err

    def test_is_made_where_the_autograders_are(self, tmp_path):
        with pytest.raises(BadArgument, match="make exercises"):
            write_edition(tmp_path / "spring.zip", tmp_path)


def normal(*values):
    return F.batch_norm(torch.tensor(values, dtype=torch.float64)[:, None], None, None, training=True, eps=1e-12)[:, 0]


def after(layer, x, steps=1):
    for _ in range(steps):
        layer(x)
    return layer


def batch_of_variance(variance, count):
    x = torch.linspace(-1, 1, count, dtype=torch.float64)
    return (x * (variance / x.var(correction=0)).sqrt()).reshape(1, 1, -1)


def dropped(mean, p):
    torch.manual_seed(0)
    x = mean + torch.randn(2_000_000)
    return x.var() / F.dropout(x, p).var()


def spread_of(s, eps):
    x = torch.tensor([[-1.0], [1.0]], dtype=torch.float64) * s
    return F.batch_norm(x, None, None, training=True, eps=float(eps)).std(correction=0)


def folded(g, mu, v, b):
    norm = nn.BatchNorm2d(1, eps=0.0).eval()
    norm.weight.data.fill_(g), norm.bias.data.fill_(b), norm.running_mean.fill_(mu), norm.running_var.fill_(v)
    return torch.nn.utils.fuse_conv_bn_eval(nn.Conv2d(1, 1, 1, bias=False).eval(), norm).bias


def gradient_ratio(a):
    torch.manual_seed(0)
    x, dy, w = torch.randn(9, 4).double(), torch.randn(9, 3).double(), torch.randn(3, 4).double()
    slopes = []
    for scale in (1, a):
        weight = (scale * w).requires_grad_()
        loss = (F.batch_norm(x @ weight.T, None, None, training=True, eps=1e-12) * dy).sum()
        slopes.append(torch.autograd.grad(loss, weight)[0])
    return (slopes[0] / slopes[1]).mean()


def ended(layer):
    return sum(buffer.numel() for buffer in layer.buffers())


ORACLES = {
    "parameters": lambda c: sum(p.numel() for p in nn.BatchNorm2d(c).parameters()),
    "buffers": lambda c: ended(nn.BatchNorm1d(c)),
    "values-per-mean": lambda n, c, h: torch.zeros(n, c, h, h)[:, 0].numel(),
    "group-means": lambda n, g, c: torch.native_group_norm(torch.zeros(n, c, 4), None, None, n, c, 4, g, 1e-5)[
        1
    ].numel(),
    "instance-means": lambda n, c: torch.zeros(n, c, 5).mean(2).numel(),
    "normalized": lambda a, b, c: normal(a, b, c)[2],
    "small-spread": spread_of,
    "remembered": lambda old, new, m: (
        F.batch_norm(torch.full((4, 1), new), running := torch.tensor([old]), torch.ones(1), training=True, momentum=m)
        is None
        or running
    ),
    "unbiased-memory": lambda v, n, h: (
        after(nn.BatchNorm1d(1, momentum=1.0).double(), batch_of_variance(v, n * h * h)).running_var
    ),
    "warm-up": lambda k, m: 100 * after(nn.BatchNorm1d(1, momentum=m), torch.ones(3, 1), k).running_mean,
    "from-keras": lambda k: 1 - k,
    "noise": lambda m: 1 / torch.randn(40_000, m, generator=torch.Generator().manual_seed(0)).mean(1).std(),
    "furthest": lambda m: normal(*[0.0] * (m - 1), 1.0).max(),
    "scaled-gradient": gradient_ratio,
    "variance-shift": lambda p, mean: dropped(mean, p),
    "merged": lambda a, b, v: torch.tensor([a - v**0.5, a + v**0.5, b - v**0.5, b + v**0.5]).var(correction=0),
    "uneven-factor": lambda a, b: b / ((a + b) / 2),
    "folded-bias": folded,
    "judged": lambda mean, s, t, n: mean - t * s / math.sqrt(n),
    "kept-bytes": lambda n, c, h: torch.zeros(n, c, h, h).untyped_storage().nbytes() / 2**20,
}


class TestQuiz:
    @pytest.mark.parametrize("of_class", ["BN 2027", "ärgerlich & <b>"])
    def test_the_answers_are_torchs(self, of_class):
        assert len(QUESTIONS) == len(ORACLES) == 20
        for one in questions(of_class, range(1, 16)):
            value = float(ORACLES[one.name](**one.numbers))
            digits = len(f"{one.answer:.10f}".rstrip("0").partition(".")[2])
            near = 0.51 * 10.0**-digits if one.name not in ("noise", "variance-shift") else 0.02 * abs(one.answer)
            assert abs(value - one.answer) <= near + 1e-6, (one, value)
            assert "{" not in one.text + one.why

    def test_another_class_gets_other_numbers(self):
        first, second = (questions(name, range(1, 16)) for name in ("spring", "autumn"))
        assert first == questions("spring", range(1, 16))
        assert sum(a.numbers != b.numbers for a, b in zip(first, second, strict=True)) > 10

    def test_the_sheet_has_no_answers_and_the_key_has_all(self, tmp_path, capsys):
        assert cli.main(["quiz", "--class", "A & B", "--out", str(tmp_path / "quiz.html")]) == 0
        sheet_, key = ((tmp_path / name).read_text() for name in ("quiz.html", "quiz-key.html"))
        assert sheet_.count("<li>") == key.count("<li>") == 20 and "A &amp; B" in sheet_
        assert "<b>" not in sheet_ and key.count("<b>") == 20
        assert "Name: " in sheet_ and "Name: " not in key and "d = 1" not in key

    def test_it_asks_about_the_chapters_that_a_class_has_read(self, tmp_path, capsys):
        few, whole = questions("A", range(2, 4)), questions("A", range(1, 16))
        assert few == [one for one in whole if one.chapter in (2, 3)] and len(few) == 7
        out = tmp_path / "quiz.html"
        assert cli.main(["quiz", "--class", "A", "--chapters", "1", "--out", str(out)]) == 0
        assert "1 question," in out.read_text() and out.read_text().count("<li>") == 1
        assert cli.main(["quiz", "--class", "A", "--chapters", "11-12", "--out", str(tmp_path / "none.html")]) == 2
        assert "chapters must have a question, got 11-12" in capsys.readouterr().err
        assert not (tmp_path / "none.html").exists()
        with pytest.raises(SystemExit):
            cli.main(["quiz", "--class", "A", "--chapters", "one", "--out", str(out)])
        assert "expected chapters such as 1-5 or 3, got 'one'" in capsys.readouterr().err
