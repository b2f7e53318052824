"""Progress shows where someone looks: as a widget or a terminal's line, and never in a log or in the book."""

import inspect
import os
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from bncourse import progress

# The module alone: the package would import torch, in each of these processes.
WORK = f"""{inspect.getsource(progress)}
import time

def work():
    with progress(3, "outer work", "step") as bar:
        for _ in range(3):
            with progress(2, "inner work", "step") as inner:
                time.sleep(0.75)
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
def test_a_terminal_shows_a_line_that_goes_away():
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
    assert "outer work" in text and "3/3" in text
    assert "inner work" not in text, "what is done within two seconds shows nothing"
    assert text.rstrip("\r").split("\r")[-1].strip() == ""


@pytest.mark.parametrize(
    ("before", "shown"),
    [
        ("", "widget"),
        ("import os; os.environ['TQDM_DISABLE'] = '1'", "nothing"),  # as the book's build sets it
        ("import sys; sys.modules['ipywidgets'] = None", "text"),
    ],
)
def test_a_notebook_shows_a_widget_and_a_book_nothing(before, shown):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(f"{before}\n{WORK}\nwork()")])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = notebook.cells[0].outputs
    widgets = [output for output in outputs if "application/vnd.jupyter.widget-view+json" in output.get("data", {})]
    text = "".join(output.get("text", "") for output in outputs)
    assert bool(widgets) == (shown == "widget") and ("outer work" in text) == (shown == "text")
    assert outputs == [] or shown != "nothing"
