"""Questions that react: predictions at the beginning of a chapter, questions before its summary, all as data.

``book/questions/NN.toml`` has those of chapter NN. They are put into a chapter when it is read, so that its notebook
does not know of them. ``questions.js`` makes them react; without it every explanation is shown. The same questions are
a deck for Anki, ``review-deck.txt`` beside the pages.
"""

import hashlib
import json
import tomllib
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from ledger import shown
from links import link
from markdown_it import MarkdownIt
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

FOLDER = Path(__file__).resolve().parent.parent / "questions"
DECK = "review-deck.txt"
BEFORE = "## What to remember"  # where a chapter's questions go
VERDICTS = {  # the answers to a prediction about a claim
    "holds": "yes",
    "does not hold": "no",
    "undecided here": "we cannot tell: the interval allows both",
}
inline = MarkdownIt("commonmark").renderInline


class Answer(NamedTuple):
    """An answer and why it is right or wrong, as HTML."""

    text: str
    why: str
    right: bool


class Question(NamedTuple):
    """A question, as HTML; its id is that of its chapter and its own."""

    id: str
    ask: str
    answers: list[Answer]


def chapter_of(docname: str) -> str | None:
    """The number of a chapter that has questions."""
    return docname[:2] if (FOLDER / f"{docname[:2]}.toml").exists() and docname[2:3] == "-" else None


def read(chapter: str, kind: str, claims: list[dict]) -> list[Question]:
    """A chapter's questions or predictions; those about a claim have the verdict that was measured as the right answer.

    A claim that could not be measured has no right answer, and its prediction is left out.
    """
    verdicts = {claim["name"]: claim for claim in claims if claim["verdict"] in VERDICTS}
    found = []
    for row in tomllib.loads((FOLDER / f"{chapter}.toml").read_text(encoding="utf-8")).get(kind, []):
        if "claim" not in row:
            name = f"{chapter}.toml, {row['id']}"
            answers = [explained(name, *row["right"], right=True)]
            answers += [explained(name, *one, right=False) for one in row["wrong"]]
            answers.sort(key=lambda answer: hashlib.sha256(answer.text.encode()).digest())  # any order, always the same
        elif row["claim"] in verdicts:
            claim = verdicts[row["claim"]]
            why = f"Measured: {claim['verdict']}. {escape(claim['text'])}"
            answers = [Answer(text, why, verdict == claim["verdict"]) for verdict, text in VERDICTS.items()]
        else:
            continue
        found.append(Question(f"{chapter}-{row['id']}", inline(row["ask"]), answers))
    return found


def explained(question: str, text: str, why: str = "", *, right: bool) -> Answer:
    if not why.strip():
        raise ExtensionError(f"book/questions/{question}: the answer {text!r} must have its reason, got none")
    return Answer(inline(text), inline(why), right)


def insert(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the directives into a chapter that is about to be read: after its first cell, and before its summary."""
    if chapter_of(docname) is None:
        return
    notebook = json.loads(source[0])
    cells = notebook["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    number = next((n for n, text in enumerate(texts) if BEFORE in text), None)
    if number is None:
        raise ExtensionError(f"{docname} must have the heading {BEFORE!r}, before which its questions go, got none")
    before, after = texts[number].split(BEFORE, 1)
    cells[number : number + 1] = [
        cells[number] | {"source": before},
        markdown("questions", "## Questions\n\n```{questions}\n```"),
        markdown("summary", BEFORE + after),
    ]
    cells.insert(1, markdown("predictions", "```{predictions}\n```"))
    source[0] = json.dumps(notebook)


def markdown(id: str, text: str) -> dict:
    return {"cell_type": "markdown", "id": id, "metadata": {}, "source": text}


def fieldset(question: Question, kind: str, button: str) -> str:
    """The HTML of a question: its answers as radio buttons, each with its explanation."""
    rows = "".join(
        f'<label><input type="radio" name="{question.id}" value="{number}"{" data-right" * answer.right}> '
        f"<span>{answer.text}</span></label>"
        f'<p class="bn-why" hidden>{"Right." if answer.right else "Not right."} {answer.why}</p>'
        for number, answer in enumerate(question.answers)
    )
    return (
        f'<fieldset class="bn-asked" id="question-{question.id}" data-kind="{kind}"><legend>{question.ask}</legend>'
        f'{rows}<button type="button" hidden>{button}</button><p class="bn-said" role="status"></p></fieldset>'
    )


class PredictionsDirective(SphinxDirective):
    """What to predict before reading; the answers are kept and scored at the chapter's end."""

    def run(self) -> list[nodes.Node]:
        chapter = depends(self.env)
        fields = "".join(
            fieldset(question, "prediction", "Record")
            for question in read(chapter, "prediction", self.env.bncourse_claims)
        )
        said = "<p><strong>Record what you expect.</strong> It is scored at the end of the chapter.</p>"
        return [raw(f'<section class="bn-questions" aria-label="Predictions">{said}{fields}</section>')]


class QuestionsDirective(SphinxDirective):
    """The chapter's questions, after the score of its predictions."""

    def run(self) -> list[nodes.Node]:
        chapter = depends(self.env)
        predictions = "".join(
            f'<li data-of="{one.id}"><details><summary>{one.ask}</summary>'
            + "".join(f"<p><b>{answer.text}</b>: {answer.why}</p>" for answer in one.answers if answer.right)
            + '</details><p class="bn-said"></p></li>'
            for one in read(chapter, "prediction", self.env.bncourse_claims)
        )
        fields = "".join(fieldset(one, "question", "Check") for one in read(chapter, "question", []))
        overview = link(self.env, "questions", "all chapters") if "questions" in self.env.found_docs else ""
        more = f"Your answers stay in this browser: {overview}." if overview else ""
        score = f'<p class="bn-score" data-chapter="{chapter}" role="status"></p>'
        plain = '<noscript><style>[data-kind="question"] .bn-why { display: block !important; }</style></noscript>'
        predicted = f'<p>What you predicted:</p><ul class="bn-predicted">{predictions}</ul>'
        html = f"{plain}{predicted}{fields}{score}<p>{more}</p>"
        return [raw(f'<section class="bn-questions" aria-label="Questions">{html}</section>')]


class OverviewDirective(SphinxDirective):
    """All chapters with their numbers of questions, for the script to fill in; what can be done with the answers."""

    def run(self) -> list[nodes.Node]:
        rows = ""
        for page in sorted(name for name in self.env.found_docs if chapter_of(name)):
            depends(self.env, page)
            questions = len(read(page[:2], "question", []))
            predictions = len(read(page[:2], "prediction", self.env.bncourse_claims))
            rows += (
                f'<tr data-chapter="{page[:2]}"><td>{link(self.env, page, f"Chapter {int(page[:2])}")}</td>'
                f"<td><span>0</span> of {questions}</td><td><span>0</span></td>"
                f"<td><span>0</span> of {predictions}</td><td><span>0</span></td></tr>"
            )
        names = ('<span class="visually-hidden">chapter</span>', "answered", "right at once", "predicted", "came true")
        head = "".join(f'<th scope="col">{name}</th>' for name in names)
        buttons = (
            '<p class="bn-buttons"><button type="button" data-do="export">Export</button>'
            '<label class="bn-file">Import <input type="file" accept=".json,application/json"></label>'
            '<button type="button" data-do="erase">Erase all</button></p><p class="bn-said" role="status"></p>'
        )
        table = f'<table class="table bn-answers"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        deck = f'<p><a href="{DECK}" download>Download the questions as cards for Anki</a></p>'
        html = f'<section class="bn-questions" aria-label="Your answers">{table}{buttons}{deck}</section>'
        return [shown(self.env, html)]


def raw(html: str) -> nodes.raw:
    return nodes.raw("", html, format="html")


def depends(env, docname: str | None = None) -> str:
    """A chapter's number; the page that is being read is read again when the chapter's questions change."""
    chapter = chapter_of(docname or env.docname)
    if chapter is None:
        raise ExtensionError(f"{docname or env.docname} must be a chapter with a file in book/questions, got none")
    env.note_dependency(str(FOLDER / f"{chapter}.toml"))
    return chapter


def cards(claims: list[dict]) -> Iterator[tuple[str, str, str, str]]:
    """For Anki: a lasting id, the question with its answers, the right one with the explanations, and tags."""
    for path in sorted(FOLDER.glob("*.toml")):
        for kind in ("prediction", "question"):
            for one in read(path.stem, kind, claims):
                choices = "".join(f"<li>{answer.text}</li>" for answer in one.answers)
                (right,) = (answer for answer in one.answers if answer.right)
                others = {f"<li>{a.text}: {a.why}</li>" for a in one.answers if not a.right and a.why != right.why}
                back = f"<b>{right.text}</b><br>{right.why}" + f"<ul>{''.join(sorted(others))}</ul>" * bool(others)
                yield f"bncourse-{one.id}", f"{one.ask}<ul>{choices}</ul>", back, f"chapter-{path.stem} {kind}"


def write_deck(app: Sphinx, exception: Exception | None) -> None:
    """The deck as the text that Anki imports: header lines that name the columns, then a line for each card."""
    if exception is not None or app.builder.name != "html":
        return
    head = ["#separator:tab", "#html:true", "#notetype:Basic", "#deck:Batch Normalization, Tested"]
    head += ["#columns:guid\tFront\tBack\tTags", "#guid column:1", "#tags column:4"]
    rows = ["\t".join(" ".join(field.split()) for field in card) for card in cards(app.env.bncourse_claims)]
    Path(app.outdir, DECK).write_text("\n".join([*head, *rows]) + "\n", encoding="utf-8")


def setup(app: Sphinx) -> dict:
    app.add_directive("predictions", PredictionsDirective)
    app.add_directive("questions", QuestionsDirective)
    app.add_directive("answers", OverviewDirective)
    app.connect("source-read", insert)
    app.connect("build-finished", write_deck)
    return {"parallel_read_safe": True}
