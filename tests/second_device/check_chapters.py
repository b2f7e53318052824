"""On the second device: every cell of every chapter runs, in a quick run. Pictures are made and not rendered."""

import json

import matplotlib.pyplot as plt
import pytest
import second_device
import torch

from bncourse import notebook
from bncourse.explorers.explorer import Explorer
from tools.toc import chapters


def one_frame(self, draw, *, grid, **words):
    """A whole explorer draws hundreds, none of them on the device but those of ``activations``."""
    draw(**{name: values[-1] for name, values in grid.items()})


@pytest.fixture(autouse=True)
def quickly(monkeypatch, tmp_path):
    monkeypatch.setenv("BNCOURSE_DEVICE", "pretend")
    monkeypatch.setenv("BNCOURSE_QUICK", "1")
    monkeypatch.setattr(notebook, "show", lambda fig, **words: plt.close(fig))
    monkeypatch.setattr(Explorer, "__init__", one_frame)
    monkeypatch.setattr(Explorer, "show", lambda self: None)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    assert not second_device.LATE


@pytest.mark.parametrize("path", chapters(), ids=lambda path: path.stem)
def test_every_cell_runs(monkeypatch, path):
    monkeypatch.chdir(path.parent)
    namespace = {"__name__": "__main__"}
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), namespace)
