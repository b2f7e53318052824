"""The doctor's page: all rules, and answers that are made when the book is built."""

import html
import re
import shutil
import subprocess
import sys

import pytest

from bncourse.doctor import RULES
from tools.toc import ROOT


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page in a book of its own, and what it says."""
    root = tmp_path_factory.mktemp("book")
    for name in ("_ext", "_static"):
        shutil.copytree(ROOT / "book" / name, root / "book" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("_config.yml", "requirements.txt", "book/doctor.md"):
        shutil.copy(ROOT / name, root / name)
    (root / "book" / "references.bib").write_text("")  # it cites nothing
    (root / "book" / "03-modes.md").write_text("# Modes\n\nText.\n")
    (root / "book" / "index.md").write_text("# A course\n\n[the strongest](#BN-F01)\n")
    (root / "_toc.yml").write_text("format: jb-book\nroot: index\nchapters:\n  - file: 03-modes\n  - file: doctor\n")
    done = subprocess.run([sys.executable, "-m", "tools.build", root], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
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
    assert re.search(r"error\s+BN-F01\s+0.1 and 1 more\s+loss", copied) and "BN-S04" in copied
    assert "watched for 2 forward passes and 1 step: 1 error" in watched and "BN-W01" in watched


def test_rules_that_pages_name_exist():
    pages = [*(ROOT / "book").glob("*.md"), *(ROOT / "book").glob("*.ipynb")]
    named = {id for path in pages for id in re.findall(r"BN-[SFW]\d\d", path.read_text(encoding="utf-8"))}
    assert len(named) > 20 and named <= {rule.id for rule in RULES}
