"""Submissions that a grader must survive, all of them bounded: name -> (cells or raw content, status, points)."""

import json

RIGHT = "def output_std(gain, depth):\n    return gain**depth"
POWER = "def output_std(gain, depth):\n    return math.pow(gain, depth)"
WRONG = "def output_std(gain, depth):\n    return gain * depth"
CHECK = 'from bncourse.exercises import check\ncheck("signal", output_std)'
LEAVE = 'import subprocess\nsubprocess.Popen(["sleep", "98765"], start_new_session=True)'
POINTS = 4.0  # what the right answer scores

ASSIGNMENT = {
    "name": "tiny",
    "questions": [
        {
            "name": "signal",
            "points": POINTS,
            "all_or_nothing": False,
            "cases": [
                {
                    "name": "30 layers, gain 0.5: the signal vanishes",
                    "hidden": False,
                    "points": 3.0,
                    "source": "def public(output_std):\n    from bncourse.exercises import run_case\n"
                    "    run_case('signal', '30 layers, gain 0.5: the signal vanishes', output_std)",
                },
                {
                    "name": "secret case",
                    "hidden": True,
                    "points": 1.0,
                    "source": "def hidden(output_std):\n    assert output_std(0.25, 2) == 0.0625, 'secret message'",
                },
            ],
        },
        {
            "name": "loot",  # worth nothing to the honest; what a submission found that it should not have
            "points": 1.0,
            "all_or_nothing": True,
            "cases": [
                {
                    "name": "loot",
                    "hidden": True,
                    "points": 1.0,
                    "source": "def loot_was_found(loot):\n    assert loot, 'nothing found'",
                }
            ],
        },
    ],
}


UNSHARED = """
import os, sys
if "torch._dynamo" not in sys.modules or "TORCHINDUCTOR_CACHE_DIR" in os.environ:
    os._exit(1)
"""


def notebook(*cells, metadata=True):
    """A notebook of code cells, as text."""
    extra = {"metadata": {}, "outputs": [], "execution_count": None} if metadata else {}
    content = {"cells": [{"cell_type": "code", "source": cell, **extra} for cell in cells]}
    return json.dumps(content | ({"metadata": {}, "nbformat": 4, "nbformat_minor": 5} if metadata else {}))


def submissions(port, autograder, others):
    """Each submission's file content, its status and its points, by name."""
    search = f"""
import glob, os
loot = [path for folder in ({str(autograder)!r}, {str(others)!r}) for path in glob.glob(folder + "/**", recursive=True)
        if os.path.isfile(path)]
import sys
frame = sys._getframe()
while frame:
    loot += [name for name in frame.f_locals if "question" in name or "message" == name]
    frame = frame.f_back
"""
    connect = f"""
import socket
loot = []
for host in ("127.0.0.1", "localhost"):
    try:
        socket.create_connection((host, {port}), timeout=2).sendall(b"hello")
        loot.append(host)
    except OSError:
        pass
"""
    forge = """
import json, os
line = json.dumps({"event": "question", "name": "signal", "token": "", "outcomes": [{"passed": True}] * 2})
for descriptor in range(3, 64):
    try:
        os.write(descriptor, b"\\n" + line.encode() + b"\\n" + b'{"event": "done"}' + b"\\n" + b"[" * 100_000 + b"\\n")
    except OSError:
        pass
"""
    replace = """
import builtins, torch, bncourse.exercises, bncourse.exercises.compare, bncourse.exercises.exercise as exercise
bncourse.exercises.run_case = lambda *arguments: None
bncourse.exercises.compare.expect.__code__ = (lambda *arguments, **options: None).__code__
exercise.Case.run = lambda self, answer: None
torch.allclose = lambda *arguments, **options: True
for case in bncourse.exercises.EXERCISES["signal"].cases:
    case.test, case.inputs = lambda *arguments, **options: None, ()
bncourse.exercises.EXERCISES["signal"].cases.clear()
"""
    stubborn = "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass"
    fork = "import os, time\nfor _ in range(5):\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(98765)"
    endless_answer = "def output_std(gain, depth):\n    while True:\n        pass"
    home = "import os, shutil\nshutil.rmtree(os.getcwd(), ignore_errors=True)\nos.chdir('/')"
    return {
        "good": (notebook(RIGHT, CHECK), "ok", POINTS),
        "finds torch's compiler imported and no folder of it": (notebook(UNSHARED, RIGHT), "ok", POINTS),
        "wrong": (notebook(WRONG, CHECK), "ok", 0.0),
        "unanswered": (notebook("output_std = ...", CHECK), "ok", 0.0),
        "no answer at all": (notebook("x = 1"), "ok", 0.0),
        "deleted check": (notebook(RIGHT), "ok", POINTS),
        "duplicated cells": (notebook(RIGHT, RIGHT, CHECK, RIGHT, CHECK), "ok", POINTS),
        "stripped metadata": (notebook(RIGHT, CHECK, metadata=False), "ok", POINTS),
        "Zoë van der Berg (2)": (notebook(RIGHT, CHECK), "ok", POINTS),
        "=1+1": (notebook(RIGHT), "ok", POINTS),
        "magic": (notebook("%matplotlib inline\n!echo hello", RIGHT, "%nonsense"), "ok", POINTS),
        "magic before an import": (notebook("%matplotlib inline\n%autosave 9\nimport math", POWER), "ok", POINTS),
        "no stream": (notebook("import sys\nsys.stdout = sys.stderr = None\n1 / 0", RIGHT), "ok", POINTS),
        "raises without text": (notebook("class E(Exception):\n    __str__ = None\nraise E", RIGHT), "ok", POINTS),
        "displays without end": (notebook("while True:\n    display('x' * 100_000)", RIGHT), "timeout", POINTS),
        "breaks json": (notebook(RIGHT, "import json, os\njson.dumps = os.write = os.read = None"), "ok", POINTS),
        "import that does not exist": (notebook("import no_such_module", RIGHT), "ok", POINTS),
        "syntax error": (notebook(RIGHT, "def broken(:"), "ok", POINTS),
        "asks for input": (notebook(RIGHT, "input('yes?')"), "ok", POINTS),
        "raises odd text": (notebook(RIGHT, "raise ValueError('\\udcff \\x1b[31m')"), "ok", POINTS),
        "answers odd text": (notebook("def output_std(*_):\n    raise ValueError('\\udcff')"), "ok", 0.0),
        "a name\nof two lines": (notebook(RIGHT), "ok", POINTS),
        "exits": (notebook(RIGHT, "raise SystemExit"), "ok", POINTS),
        "talks": (notebook(RIGHT, "for _ in range(200_000):\n    print('x' * 100)"), "ok", POINTS),
        "endless loop": (notebook(RIGHT, "while True:\n    pass"), "timeout", POINTS),
        "endless answer": (notebook(endless_answer), "timeout", 0.0),
        "stubborn loop": (notebook(RIGHT, stubborn), "timeout", 0.0),
        "allocates": (notebook(RIGHT, "import torch\nx = torch.ones(10_000_000_000)"), "memory", POINTS),
        "allocates in Python": (notebook(RIGHT, "x = bytearray(20_000_000_000)"), "memory", POINTS),
        "leaves a child": (notebook(RIGHT, LEAVE), "ok", POINTS),
        "forks": (notebook(RIGHT, fork), "ok", POINTS),
        "ends its process": (notebook(RIGHT, "import os\nos._exit(3)"), "crashed", 0.0),
        "ends its process oddly": (notebook(RIGHT, "import os\nos._exit(200)"), "crashed", 0.0),
        "breaks its process": (notebook(RIGHT, "import ctypes\nctypes.string_at(0)"), "crashed", 0.0),
        "removes its folder": (notebook(home, RIGHT), "ok", POINTS),
        "connects": (notebook(WRONG, connect), "ok", 0.0),
        "searches": (notebook(WRONG, search), "ok", 0.0),
        "forges": (notebook(WRONG, forge), "ok", 0.0),
        "replaces": (notebook(WRONG, replace), "ok", 0.0),
        "invalid JSON": ('{"cells": [', "unreadable", 0.0),
        "a list": ("[]", "unreadable", 0.0),
        "no text": ("\udcff\udcfe", "unreadable", 0.0),
    }
