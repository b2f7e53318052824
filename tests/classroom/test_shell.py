"""What a Jupyter kernel runs, the grader's shell runs, in one process of its own; and nothing a cell does stops it."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("resource", reason="grading needs Linux or macOS")

GOES_ON = {  # a first line, and what follows it in the same cell must run
    "inline figures": "%matplotlib inline",
    "a backend that is not there": "%matplotlib ipympl",
    "a window": "%matplotlib qt",
    "pylab": "%pylab inline --no-import-all",
    "an event loop of a GUI": "%gui tk",
    "a line magic that nobody has": "%tensorboard --logdir logs",
    "an extension that nobody has": "%load_ext no_such_extension",
    "a magic by call": "get_ipython().run_line_magic('autosave', '0')",
    "a pager": "%less no_such_file",
    "the kernel's own": "%connect_info\n%doctest_mode",
    "a figure's format": "%config InlineBackend.figure_formats = ['svg']",
    "which shell": "assert get_ipython().__class__.__name__ == 'ZMQInteractiveShell'",
    "a notebook": "assert 'IPKernelApp' in get_ipython().config",
    "a running loop": "import asyncio\nasyncio.get_running_loop().call_soon(print)",
    "awaits": "import asyncio\nawait asyncio.sleep(0)",
    "leaves": "quit()",
    "a widget": "import ipywidgets\nipywidgets.interact(lambda n: n, n=(1, 3))",
    "a figure": "import matplotlib.pyplot as plt\nplt.hist([1, 2, 2])\nplt.show()",
    "a module that is not here": "from google.colab import drive\ndrive.mount('/content/drive')",
    "shell commands": "!false\nnames = !ls",
}
FAILS_ALONE = {  # cells after which the next one must run
    "an error without text": "class E(Exception):\n    __str__ = None\nraise E",
    "a text that is no text": "class E(Exception):\n    def __str__(self): return 5\nraise E",
    "a text that exits": "class E(Exception):\n    def __str__(self): raise SystemExit\nraise E",
    "a class that hides its name": (
        "class M(type):\n    @property\n    def __name__(cls): raise OSError\n"
        "class E(Exception, metaclass=M): pass\nraise E"
    ),
    "an error that is false": "class E(Exception):\n    def __bool__(self): raise OSError\nraise E",
    "a text of an odd class": (
        "class S(str):\n    def strip(self): raise OSError\n"
        "class E(Exception):\n    def __str__(self): return S('x')\nraise E"
    ),
    "an expression too deep": "-" * 50_000 + "1",
    "no streams": "import sys\nsys.stdout = sys.stderr = sys.stdin = None\n1 / 0",
    "closed streams": "import sys\nsys.stdout.close(), sys.stderr.close()\n1 / 0",
    "no print": "import builtins\ndel builtins.print, builtins.len",
    "shallow recursion": "import sys\nsys.setrecursionlimit(70)",
    "a transformer that raises": (
        "class T:\n    def visit(self, node): return 1 / 0\nget_ipython().ast_transformers.append(T())"
    ),
    "a hook that raises": "get_ipython().events.register('post_run_cell', lambda result: 1 / 0)",
    "a loop that stops": "import asyncio\nasyncio.get_running_loop().stop()\nawait asyncio.sleep(0)",
    "a handler of its own": (
        "get_ipython().set_custom_exc((ValueError,), lambda *a, **k: 1 / 0)\nraise ValueError('\\udcff')"
    ),
}
PROGRAM = """
import json, os, sys
from bncourse.exercises.exercise import describe
from bncourse.grading.shell import ZMQInteractiveShell

cells = json.load(sys.stdin)
said, results = os.dup(1), []
for first, second in cells:
    ZMQInteractiveShell.clear_instance()
    shell = ZMQInteractiveShell.instance()
    errors = [describe(error) for error in shell.execute(first)]
    later = [describe(error) for error in shell.execute(second)]
    results.append([errors, later, shell.user_ns.get("answer")])
os.write(said, b"\\nRESULT" + json.dumps(results).encode())
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shell")
    pairs = [(f"{line}\nanswer = 42", "") for line in GOES_ON.values()]
    pairs += [(cell, "print(len('output'))\nanswer = 42") for cell in FAILS_ALONE.values()]
    environment = os.environ | {"IPYTHONDIR": str(folder), "HOME": str(folder), "PYTHONPATH": os.getcwd()}
    environment["MPLBACKEND"] = "agg"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=folder, env=environment, input=json.dumps(pairs), capture_output=True, text=True,
    )  # fmt: skip
    assert "RESULT" in done.stdout, done.stderr[-2000:]
    return dict(zip([*GOES_ON, *FAILS_ALONE], json.loads(done.stdout.rpartition("RESULT")[2]), strict=True))


@pytest.mark.parametrize("name", [*GOES_ON, *FAILS_ALONE])
def test_the_answer_is_there(results, name):
    errors, later, answer = results[name]
    assert answer == 42, (errors, later)


def test_what_failed_is_told(results):
    assert "ModuleNotFoundError: No module named 'google" in results["a module that is not here"][0][0]
    assert results["a line magic that nobody has"][0] == ["UsageError: Line magic function `%tensorboard` not found."]
    assert results["an error without text"][0] == ["E: its text cannot be read"]
    assert results["inline figures"][0] == [] == results["a widget"][0]
