"""The doctor's page: all rules, and answers that are made when the book is built."""

import copy
import html
import json
import re
import shutil

import pytest
import torch
from small_books import build
from torch.nn.functional import cross_entropy

from bncourse.doctor import RULES
from bncourse.models import small_cnn
from tools.toc import ROOT


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page in a book of its own, and what it says."""
    root = tmp_path_factory.mktemp("book")
    for name in ("_ext", "_static"):
        shutil.copytree(ROOT / "book" / name, root / "book" / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "benchmarks").mkdir()
    for name in ("_config.yml", "requirements.txt", "book/doctor.md", "benchmarks/doctor.json"):
        shutil.copy(ROOT / name, root / name)
    (root / "book" / "references.bib").write_text("")  # it cites nothing
    (root / "book" / "03-modes.md").write_text("# Modes\n\nText.\n")
    (root / "book" / "index.md").write_text("# A course\n\n[the strongest](#BN-F01)\n")
    (root / "_toc.yml").write_text("format: jb-book\nroot: index\nchapters:\n  - file: 03-modes\n  - file: doctor\n")
    succeeded, said = build(root)
    assert succeeded, said
    return (root / "_build" / "html" / "doctor.html").read_text()


def test_every_rule_has_a_row_and_leads_to_its_chapter(page):
    for rule in RULES:
        assert page.count(f'<tr id="{rule.id}">') == 1
        assert html.escape(rule.title) in page
    assert 'href="03-modes.html">chapter 3</a>' in page and "``" not in page


def test_answers_are_made_by_the_build(page):
    blocks = re.findall(r'<div class="highlight-text notranslate">(.*?)</pre>', page, re.S)
    healthy, copied, watched = (re.sub("<[^>]+>", "", block) for block in blocks[:3])
    assert healthy.startswith("2 batch norms: 1 note") and "BN-S20" in healthy
    assert "\nerror BN-F01 in 0.1 and 1 more\n  loss " in copied and "BN-S04" in copied
    assert "watched for 2 forward passes and 1 step: 1 error" in watched and "BN-W01" in watched


def test_what_the_doctor_says_of_public_models_is_what_was_measured(page):
    results = json.loads((ROOT / "benchmarks" / "doctor.json").read_text(encoding="utf-8"))
    text = html.unescape(re.sub("<[^>]+>", "", page))
    answers = next(row for row in results["shown"] if "sick" in row)
    assert answers["healthy"] in text and answers["sick"] in text and "BN-F01" in answers["sick"]
    seconds = next(row["examination"] for row in results["shown"] if "examination" in row)
    assert f"examination with that batch takes {seconds:.1f} s" in page
    folded = results["folded"]
    assert all(max(row["ours_off"], row.get("torch_off", 0)) < 1e-3 for row in folded if row["ours"])
    assert page.count("<tr><td><p>") >= len(folded) + 1 > 30
    assert f"{len(results['public']) - len(folded)} of the {len(results['public'])} architectures" in text
    first = next(row for row in folded if row["ours"] == row["torch"] == row["norms"])
    cells = "".join(f"<td><p>{cell}</p></td>" for cell in (first["name"], *[first["norms"]] * 3))
    assert page.count(cells) == 1


def test_opacus_refuses_and_fixes_our_batch_norms(monkeypatch):
    """The page's lines, where opacus is installed; the gradient of each sample is that of the sample alone."""
    opacus = pytest.importorskip("opacus.validators")
    samples = pytest.importorskip("opacus.grad_sample")
    for known in ("VALIDATORS", "FIXERS"):
        monkeypatch.setattr(opacus.ModuleValidator, known, dict(getattr(opacus.ModuleValidator, known)))
    page = (ROOT / "book" / "doctor.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n([^`]*opacus[^`]*)```", page)
    model = small_cnn(channels=1)
    assert opacus.ModuleValidator.is_valid(model)  # as the page says: it sees nothing
    exec(lines, {})
    assert len(opacus.ModuleValidator.validate(model)) == 2
    model = opacus.ModuleValidator.fix_and_validate(model)
    x, y = torch.randn(3, 1, 28, 28), torch.arange(3)
    for sample in range(3):
        model.zero_grad()
        cross_entropy(model(x[sample : sample + 1]), y[sample : sample + 1]).backward()
        alone = {f"_module.{name}": value.grad.clone() for name, value in model.named_parameters()}
        every = samples.GradSampleModule(copy.deepcopy(model))
        cross_entropy(every(x), y).backward()
        for name, value in every.named_parameters():
            torch.testing.assert_close(value.grad_sample[sample], alone[name], rtol=1e-4, atol=1e-5)


def test_rules_that_pages_name_exist():
    pages = [*(ROOT / "book").glob("*.md"), *(ROOT / "book").glob("*.ipynb")]
    named = {id for path in pages for id in re.findall(r"BN-[SFW]\d\d", path.read_text(encoding="utf-8"))}
    assert len(named) > 20 and named <= {rule.id for rule in RULES}
