"""The notebooks run, and run again when what they used has changed, and only then."""

import ast
import io
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest

from tools.forked import SAFE
from tools.notebooks import NotebookFailed, Progress, execute, short_name
from tools.provisioner import Forked
from tools.runs import KEPT, Notebook
from tools.toc import ROOT, chapters, notebooks

pytestmark = pytest.mark.usefixtures("forks")


@pytest.fixture(scope="module")
def run_together(request, building) -> None:
    """The notebooks that ``test_runs`` is asked for, side by side: then their kernels start with torch imported."""
    paths = [item.callspec.params["path"] for item in request.session.items if item.name.startswith("test_runs[")]
    with building, suppress(NotebookFailed):  # test_runs says which
        execute(paths)


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_runs(run_together, building, path):
    """``make test`` has run the chapters before, for the book; they are not run a second time."""
    with building:
        execute([path])


def test_what_runs_again_when_a_function_changes(book, tmp_path):
    """As ``uses.toml`` says, which is made by ``python -m tools.notebooks --uses`` and reviewed as the code is."""
    for name in ("bncourse", "book", "_build/.executed"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "_static"))
    for name in ("requirements.txt", "_toc.yml"):
        shutil.copy(ROOT / name, tmp_path)
    assert all(Notebook(path, tmp_path).holding() for path in chapters(tmp_path))
    found = {}
    for file in sorted(path for path in (tmp_path / "bncourse").rglob("*") if path.is_file()):
        before = file.read_text(encoding="utf-8")
        file.write_text(with_other_body(before) if file.suffix == ".py" else before + " ", encoding="utf-8")
        if again := [path for path in chapters(tmp_path) if not Notebook(path, tmp_path).holding()]:
            found[file.relative_to(tmp_path).as_posix()] = " ".join(map(short_name, again))
        file.write_text(before, encoding="utf-8")
    written = tomllib.loads((Path(__file__).parent / "uses.toml").read_text(encoding="utf-8"))
    assert found == written


def with_other_body(code: str) -> str:
    """The module with one statement more in its first function; at its end if it has none."""
    lines = code.splitlines()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef) and node.body[0].lineno > node.lineno:
            lines.insert(node.body[0].lineno - 1, " " * node.body[0].col_offset + "1 + 1")
            return "\n".join(lines)
    return code + "\n1 + 1\n"


@pytest.fixture
def small(tmp_path) -> Path:
    """A course of one notebook, which is to be written, and a package of one file."""
    (tmp_path / "bncourse").mkdir()
    (tmp_path / "book").mkdir()
    (tmp_path / "bncourse" / "layer.py").write_text("eps = 1e-5\n")
    (tmp_path / "bncourse" / "other.py").write_text("")
    (tmp_path / "requirements.txt").write_text("torch==2.13.0\n")
    return tmp_path


def write(root: Path, *sources: str, name: str = "01-small") -> Path:
    path = root / "book" / f"{name}.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources]), path)
    return path


def output(path: Path, root: Path) -> str:
    """What the last cell has printed."""
    notebook = Notebook(path, root)
    return nbformat.read(notebook.result(notebook.newest()), 4).cells[-1].outputs[0].text


READ = "print(open('../bncourse/layer.py').read())"
READ_IN_A_WORKER = f"""import subprocess, sys
print(subprocess.run([sys.executable, "-c", {READ!r}], capture_output=True, text=True).stdout)"""


@pytest.mark.parametrize("code", [READ, READ_IN_A_WORKER], ids=["itself", "a process that it starts"])
def test_runs_again_only_when_what_it_used_has_changed(small, code):
    path, layer = write(small, code), small / "bncourse" / "layer.py"
    execute([path], small)
    assert Notebook(path, small).runs()[0].used.keys() == {"bncourse/layer.py"}
    (small / "bncourse" / "other.py").write_text("changed = True\n")
    assert Notebook(path, small).holding()
    layer.write_text("eps = 1e-3\n")
    assert not Notebook(path, small).holding()
    execute([path], small)
    assert "1e-3" in output(path, small)

    layer.write_text("eps = 1e-5\n")  # back: the earlier run is still there
    assert Notebook(path, small).holding()
    execute([path], small)
    assert "1e-5" in output(path, small)
    layer.unlink()
    assert not Notebook(path, small).holding()


def test_runs_again_when_the_code_a_version_or_a_variable_has_changed_but_not_for_a_word_of_text(small, monkeypatch):
    path = write(small, "print('hello')")
    execute([path], small)
    notebook = nbformat.read(path, 4)
    notebook.cells.append(nbformat.v4.new_markdown_cell("More text."))
    nbformat.write(notebook, path)
    assert Notebook(path, small).holding()
    with monkeypatch.context() as change:
        change.setenv("BNCOURSE_QUICK", "1")
        assert not Notebook(path, small).holding()
    (small / "requirements.txt").write_text("torch==2.14.0\n")
    assert not Notebook(path, small).holding()
    (small / "requirements.txt").write_text("torch==2.13.0\n")
    assert Notebook(path, small).holding()
    write(small, "print('hello again')")
    assert not Notebook(path, small).holding() and Notebook(path, small).newest() is None


def test_quick_runs_push_no_other_out(small, monkeypatch):
    path = write(small, "print('hello')")
    execute([path], small)
    whole = Notebook(path, small).holding()
    with monkeypatch.context() as change:
        change.setenv("BNCOURSE_QUICK", "1")
        for number in range(KEPT):
            change.setenv("BNCOURSE_SEEDS", str(number))
            execute([path], small)
            assert Notebook(path, small).holding() not in (None, whole)
    assert Notebook(path, small).holding() == whole


def test_runs_again_when_nobody_knows_what_it_used(small, monkeypatch):
    """Its result serves the build that ran it, and no other."""
    monkeypatch.setattr("tools.notebooks.Executor.source", None)
    monkeypatch.setattr("tools.notebooks.TRACED", small)  # a kernel that does not take notes
    path = write(small, READ)
    execute([path], small)
    assert Notebook(path, small).newest() and not Notebook(path, small).holding()


@pytest.mark.parametrize("torn", ["runs.json", "*.ipynb"])
def test_runs_again_when_its_record_or_its_result_is_torn(small, torn):
    path = write(small, "print('hello')")
    execute([path], small)
    (file,) = Notebook(path, small).folder.glob(torn)
    file.write_text(file.read_text()[:50])
    assert not Notebook(path, small).holding() and Notebook(path, small).newest() is None
    execute([path], small)
    assert output(path, small) == "hello\n"


def test_a_cell_that_fails_is_named_every_time_and_nothing_is_kept(small):
    path = write(small, "x = 1", "y = x / 0")
    for _ in range(2):
        with pytest.raises(NotebookFailed) as failed:
            execute([path], small)
        assert str(failed.value).startswith("01-small.ipynb, cell 2 of 2: ZeroDivisionError: division by zero")
        assert "    y = x / 0" in str(failed.value)
        assert Notebook(path, small).runs() == []


def test_a_failure_stops_the_others(small):
    started = time.monotonic()
    slow = write(small, "import pathlib, time", "pathlib.Path('started').touch(); time.sleep(300)", name="02-slow")
    path = write(small, "import pathlib, time", "while not pathlib.Path('started').exists(): time.sleep(0.1)\nnowhere")
    with pytest.raises(NotebookFailed, match="NameError"):
        execute([path, slow], small)
    assert time.monotonic() - started < 60 and Notebook(slow, small).runs() == []


def test_those_that_measure_time_run_afterwards_and_alone(small, capsys):
    """They find nothing that runs, and all threads; and a log says what runs, what is done and what is left."""
    together = "import os, pathlib, time; time.sleep(1); print(os.environ['OMP_NUM_THREADS'])"
    others = [write(small, together, name=f"0{number}-other") for number in (2, 3)]
    path = write(small, "import os; print(os.environ.get('OMP_NUM_THREADS'))")
    notebook = nbformat.read(path, 4)
    notebook.metadata["bncourse"] = {"measures_time": True}
    nbformat.write(notebook, path)
    execute([path, *others], small)
    assert output(path, small) == "None\n" and output(others[0], small) == "1\n"
    finished = {one: Notebook(one, small).folder.joinpath("runs.json").stat().st_mtime for one in (path, *others)}
    lines = capsys.readouterr().out.splitlines()
    assert lines[-4].endswith("; 2 of 3 done, 1 left") and lines[-3] == "running 01-small: 1 cells"
    assert lines[-1].startswith("3 notebooks ran in ")
    assert finished[path] - Notebook(path, small).runs()[0].seconds >= max(finished[one] for one in others) - 0.1


def test_on_a_terminal_one_line_says_what_runs_and_what_is_left(monkeypatch):
    shown = io.StringIO()
    shown.isatty = lambda: True
    monkeypatch.setattr("sys.stdout", shown)
    monkeypatch.setenv("COLUMNS", "60")
    progress = Progress(4)
    progress.cell("01-one", 1, 9)
    progress.cell("02-two", 1, 9)
    progress.finish("01-one", 3.21)
    progress.cell("02-two", 2, 9)
    *lines, last = shown.getvalue().split("\n")
    assert [line.split("\r\033[K")[-1] for line in lines] == ["done 01-one in 3.2 s"]
    assert last.split("\r\033[K")[-1] == "1 of 4 done, running 02-two (cell 2 of 9), 2 left"
    progress.cell("02-two" + 60 * "o", 1, 9)
    assert len(shown.getvalue().split("\r\033[K")[-1]) == 59


@pytest.mark.parametrize("count", [1, 2], ids=["a process", "forks"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill"])
def test_an_interrupted_run_leaves_no_kernel_and_nothing_to_trust(small, how, count):
    wait = "import os, pathlib, time; pathlib.Path('{}').write_text(str(os.getpid())); time.sleep(300)"
    paths = [write(small, wait.format(f"pid{number}"), name=f"0{number}-small") for number in range(count)]
    code = f"from pathlib import *; from tools.notebooks import execute; execute({paths!r}, {small!r})"
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True)
    pids = [small / "book" / f"pid{number}" for number in range(count)]
    wait_until(lambda: all(pid.exists() and pid.read_text() for pid in pids))
    os.killpg(process.pid, how)  # as a terminal does
    _, errors = process.communicate(timeout=30)
    assert process.returncode != 0 and (how == signal.SIGKILL or b"KeyboardInterrupt" in errors)
    wait_until(lambda: not any(is_running(int(pid.read_text())) for pid in pids))
    for path in paths:
        assert Notebook(path, small).runs() == [] and not Notebook(path, small).holding()


STATE = """import os, sys
print(os.path.basename(os.getcwd()), os.getpgid(0) == os.getpid(), "bncourse" in sys.modules, hasattr(os, "mark"))
os.mark = 1"""


def test_forks_have_the_libraries_and_nothing_of_the_course_nor_of_each_other(small):
    paths = [write(small, READ, STATE, name=f"0{number}-small") for number in range(3)]
    torch = [write(small, "import sys; print('torch' in sys.modules)", name="04-torch")]
    execute([*paths, *torch], small)
    assert output(torch[0], small) == f"{SAFE}\n"
    for path in paths:
        assert output(path, small) == "book True False False\n"
        assert Notebook(path, small).runs()[0].used.keys() == {"bncourse/layer.py"}


def test_a_kernel_collects_nothing_that_it_shares_and_ends_in_order(small):
    """What is collected is copied, all of the libraries, for seconds; and what waits for the end is done."""
    at_exit = "import atexit, pathlib; atexit.register(pathlib.Path('ended').touch)"
    path = write(small, at_exit, "import gc; print(gc.get_freeze_count() > 100_000)")
    execute([path], small)
    assert output(path, small) == f"{SAFE}\n" and path.with_name("ended").exists()


def test_a_fork_that_has_just_ended_may_be_asked_to_end():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        kernel = Forked(process.pid)
        assert kernel.poll() is None
    assert kernel.poll() == 0 and kernel.send_signal(signal.SIGTERM) is None


def test_a_kernel_that_dies_is_named(small):
    paths = [write(small, code, name=name) for name, code in (("01-well", "1"), ("02-dead", "import os; os.abort()"))]
    with pytest.raises(NotebookFailed, match=r"02-dead\.ipynb: its kernel was stopped"):
        execute(paths, small)


def wait_until(happened) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").exists() or ") Z " not in Path(f"/proc/{pid}/stat").read_text()
