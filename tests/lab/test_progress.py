"""Progress shows where someone looks: as a widget, a line of text or a terminal's line, and never in a log."""

import os
import subprocess
import sys
import textwrap

import nbformat
import pytest
from nbclient import NotebookClient

from bncourse import progress as module
from bncourse.progress import progress

WORK = """
import time
from bncourse import progress
progress.DELAY = 0.05

def work(total=4):
    with progress.progress(total, "outer work", "step") as bar:
        for _ in range(total):
            with progress.progress(2, "inner work", "step") as inner:
                time.sleep(0.1)
                inner.update(2)
            bar.update()
"""


def test_a_log_stays_quiet():
    done = subprocess.run([sys.executable, "-c", WORK + "work()"], capture_output=True, text=True, check=True)
    assert done.stdout == "" and done.stderr == ""


@pytest.mark.parametrize("end", ["sys.stderr.close()", "sys.stderr = None", "sys.stderr = object()"])
def test_work_goes_on_where_there_is_nothing_to_show_it_on(end):
    """A service without a terminal, a window program, a stream that a logger put there."""
    code = WORK + f"import sys\n{end}\nwork()\nprint('done')"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True).stdout == "done\n"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminals to imitate here")
def test_a_terminal_shows_one_line_that_goes_away():
    termios = pytest.importorskip("termios")
    reader, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    process = subprocess.Popen([sys.executable, "-c", WORK + "work()"], stderr=terminal, stdout=subprocess.PIPE)
    os.close(terminal)
    shown = b""
    try:
        while piece := os.read(reader, 4096):
            shown += piece
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(reader)
    assert process.communicate()[0] == b"" and process.returncode == 0
    text = shown.decode()
    assert "outer work" in text and "4/4" in text
    assert "inner work" not in text and "\n" not in text
    assert text.rstrip("\r").split("\r")[-1].strip() == ""


def test_a_notebook_shows_a_widget_and_a_book_one_line():
    cells = [WORK, "work()", "import os; os.environ['BNCOURSE_BOOK'] = '1'\nwork()", "progress.DELAY = 9\nwork()"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    interactive, book, quick = (cell.outputs for cell in notebook.cells[1:])
    assert "application/vnd.jupyter.widget-view+json" in interactive[0].data
    assert len(interactive) == 1, "the inner work shows nothing of its own"
    assert [output.output_type for output in book] == ["stream"]
    assert book[0].text.startswith("outer work: 4 steps in ") and book[0].text.count("\n") == 1
    assert quick == []


def test_a_notebook_without_ipywidgets_gets_the_line_of_text():
    hide = "import sys; sys.modules['ipywidgets'] = None\n"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(hide + WORK + "work()")])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs
    assert output.text.startswith("outer work: 4 steps in ")


def test_an_interruption_frees_the_place():
    with pytest.raises(ZeroDivisionError), progress(3, "work", "step"):
        raise ZeroDivisionError
    assert not module._someone_shows


def test_importing_the_layers_loads_nothing_of_the_other_rooms():
    code = textwrap.dedent("""
        import sys
        import bncourse
        print(sorted({"pooch", "sklearn", "matplotlib", "ipywidgets", "IPython"} & set(sys.modules)))
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
