"""Run the notebooks, several side by side; a notebook whose kept run still holds does not run again.

usage: python -m tools.notebooks [--uses] [CHAPTER ...]

CHAPTER is how a notebook's name begins (default: all of them). It fails where a verdict is not the one that
bncourse/claims/verdicts.toml expects.

One process a core, one thread each, the longest first; then, alone and with all threads, those that measure time (their
metadata has ``"bncourse": {"measures_time": true}``). Kernels start with the libraries imported where they can
(``forked.py``). ``traced/sitecustomize.py`` notes which files a kernel and the processes that it starts use. --uses
prints for each file of the package the notebooks that run again when it changes, for tests/book/uses.toml.
"""

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

from bncourse.devices import best_device
from bncourse.training import quick
from tools.claims import VERDICTS, as_pinned, unexpected
from tools.forked import SAFE, Source
from tools.provisioner import ForkingProvisioner
from tools.runs import Notebook, Run, hash_of, hash_of_file
from tools.toc import ROOT, chapters

TRACED = ROOT / "tools" / "traced"
TIMEOUT = 600  # seconds for one cell


class NotebookFailed(Exception):
    """A cell failed, took too long, or lost its kernel; the message names the notebook, the cell and the error."""


class Progress:
    """What runs, what is done and what is left: a line for each in a log, one changing line on a terminal."""

    def __init__(self, count: int) -> None:
        self.count, self.done, self.lock = count, 0, threading.Lock()
        self.running: dict[str, str] = {}

    def cell(self, name: str, number: int, count: int) -> None:
        with self.lock:
            if name not in self.running and not sys.stdout.isatty():
                print(f"running {name}: {count} cells", flush=True)
            self.running[name] = f"{name} (cell {number} of {count})"
            self.show()

    def finish(self, name: str, seconds: float) -> None:
        with self.lock:
            del self.running[name]
            self.done += 1
            line = f"done {name} in {seconds:.1f} s"
            print(f"\r\033[K{line}" if sys.stdout.isatty() else f"{line}; {self}", flush=True)
            self.show()

    def show(self) -> None:
        if sys.stdout.isatty():
            print(f"\r\033[K{self!s:.{shutil.get_terminal_size().columns - 1}}", end="", flush=True)

    def __str__(self) -> str:
        left = self.count - self.done - len(self.running)
        running = f", running {', '.join(self.running.values())}" if self.running else ""
        return f"{self.done} of {self.count} done{running}, {left} left"


class Executor:
    """Runs notebooks, each in a kernel of its own, and can stop them all."""

    source: Source | None = None  # of kernels with one thread

    def __init__(self, root: Path, progress: Progress) -> None:
        self.root, self.progress, self.clients, self.stopped = root, progress, set(), False
        os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # this Python's kernel, also where the user has one of that name

    def environment(self, files: Path, threads: int | None) -> dict[str, str]:
        """The variables of a kernel."""
        path = [str(TRACED), str(self.root), os.environ.get("PYTHONPATH")]
        different = {
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "PYTHONPYCACHEPREFIX": "",  # elsewhere a module's file could not be told
            "OMP_NUM_THREADS": str(threads or ""),
            "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin make a busy machine five times slower
            "LOKY_MAX_CPU_COUNT": str(threads or ""),  # the other cores run other notebooks
            "TQDM_DISABLE": "1",  # a page needs no progress bars
            "BNCOURSE_PROGRESS": "0",  # nobody learns here
            "BNCOURSE_TRACED_ROOT": str(self.root),
            "BNCOURSE_TRACED_FILES": str(files),
        }
        return {name: value for name, value in (os.environ | different).items() if value}

    def run(self, name: str, folder: Path, notebook, threads: int | None = None) -> tuple[float, list[Path] | None]:
        """Execute a notebook as if it were in that folder; return the seconds, and the files it used if they are known.

        Raises:
            NotebookFailed: a cell failed, or the kernel is gone.
        """

        def start_cell(cell, cell_index: int) -> None:
            if self.stopped:
                raise InterruptedError
            self.progress.cell(name, cell_index + 1, len(notebook.cells))

        client = NotebookClient(
            notebook,
            timeout=TIMEOUT,
            store_widget_state=False,
            resources={"metadata": {"path": str(folder)}},
            extra_arguments=["--IPKernelApp.log_level=40"],  # errors only
            on_cell_start=start_cell,
        )
        if self.source and threads == 1:
            manager = client.create_kernel_manager()
            manager.provisioner = ForkingProvisioner(self.source, kernel_spec=manager.kernel_spec, parent=manager)
        with tempfile.TemporaryDirectory() as temporary:
            files = Path(temporary, "files")
            started = time.perf_counter()
            self.clients.add(client)
            try:
                with ThreadPoolExecutor(1) as thread:  # of its own: the caller's may have a running event loop
                    execution = client.async_execute(env=self.environment(files, threads))
                    thread.submit(asyncio.run, execution).result()
            except (CellExecutionError, CellTimeoutError) as error:
                raise NotebookFailed(describe_failure(name, notebook, error)) from error
            except Exception as error:
                reason = f"its kernel was stopped: interrupted, or out of memory ({type(error).__name__})"
                raise NotebookFailed(f"{name}.ipynb: {reason}") from error
            finally:
                self.clients.discard(client)
            seconds = time.perf_counter() - started
            self.progress.finish(name, seconds)
            return seconds, list(map(Path, files.read_text().splitlines())) if files.exists() else None

    def run_and_keep(self, one: Notebook, threads: int | None) -> None:
        if self.stopped:
            return
        course = [file for top in ("bncourse", "book") for file in (self.root / top).rglob("*.*")]
        before = {file: hash_of_file(file) for file in course if "__pycache__" not in file.parts}
        conditions, notebook = one.conditions(), nbformat.read(one.path, 4)
        seconds, used = self.run(one.name, one.path.parent, notebook, threads)
        executed = nbformat.writes(notebook).encode()
        if used is not None:
            used = {file.relative_to(self.root).as_posix(): before.get(file, "missing") for file in sorted(used)}
            used = {file: was for file, was in used.items() if file != VERDICTS}
        one.keep(Run(conditions, used, round(seconds, 1), hash_of(executed)), executed)

    def stop(self) -> None:
        self.stopped = True
        for client in list(self.clients):
            if client.km and client.km.has_kernel:
                getattr(os, "killpg", os.kill)(client.km.provisioner.pid, signal.SIGTERM)


def execute(paths: Iterable[Path], root: Path = ROOT, *, check: bool = True) -> None:
    """Run those notebooks of which no kept run holds; afterwards each one's first kept run is the one that does.

    Raises:
        NotebookFailed: a notebook failed; the others were stopped. Or a verdict is not the expected one.
    """
    due, every = [], [Notebook(path, root) for path in paths]
    for one in every:
        if run := one.holding():
            one.keep(run)
        else:
            due.append(one)
    if due:
        run_all(due, root)
    if check:
        compare_verdicts(every, root)


def compare_verdicts(notebooks: Iterable[Notebook], root: Path) -> None:
    """Fail where a verdict is not the expected one; on another device or other versions say so.

    Raises:
        NotebookFailed: verdicts differ, on a CPU and with the pinned versions.
    """
    if quick() or "BNCOURSE_SEEDS" in os.environ:
        return
    differing = [f"{one.name}.ipynb, {text}" for one in notebooks for text in unexpected(one)]
    if differing and best_device().type == "cpu" and as_pinned(root):
        advice = "If it is right, python -m tools.verdicts writes what was found."
        raise NotebookFailed("\n".join(["verdicts have changed", *differing, advice]))
    for text in differing:
        print(f"Not as in the committed book: {text}", flush=True)


def run_all(due: list[Notebook], root: Path) -> None:
    due.sort(key=lambda one: -max((run.seconds for run in one.runs()), default=TIMEOUT))
    timed = [one for one in due if nbformat.read(one.path, 4).metadata.get("bncourse", {}).get("measures_time")]
    executor = Executor(root, Progress(len(due)))
    together = [one for one in due if one not in timed]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    started = time.perf_counter()
    with ExitStack() as stack:
        if not executor.source and len(together) > 1 and SAFE:
            executor.source = stack.enter_context(Source(executor.environment(Path(os.devnull), 1)))
        for group, workers, threads in ((together, cores, 1), (timed, 1, None)):
            with ThreadPoolExecutor(workers) as pool:
                futures = [pool.submit(executor.run_and_keep, one, threads) for one in group]
                try:
                    for future in as_completed(futures):
                        future.result()
                except BaseException:
                    executor.stop()
                    raise
    print(f"{len(due)} notebooks ran in {time.perf_counter() - started:.0f} s", flush=True)


def describe_failure(name: str, notebook, error: Exception) -> str:
    """The notebook, the cell (counted from 1, its code with it) and the error."""
    late = "took too long: " if isinstance(error, CellTimeoutError) else ""
    for index, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            if output.output_type == "error" and "raises-exception" not in cell.metadata.get("tags", []):
                code = "\n".join(f"    {line}" for line in cell.source.splitlines())
                where = f"{name}.ipynb, cell {index} of {len(notebook.cells)}"
                return f"{where}: {late}{output.ename}: {output.evalue}\n{code}"
    return f"{name}.ipynb: {type(error).__name__}: {error}"


def uses(root: Path = ROOT) -> Iterator[str]:
    """For each file of the package the notebooks that used it, by number: a line of tests/book/uses.toml."""
    found: dict[str, list[str]] = {}
    for path in chapters(root):
        if run := Notebook(path, root).holding():
            for file in run.used or ():
                found.setdefault(file, []).append(short_name(path))
    for file in sorted(found):
        if file.startswith("bncourse/"):
            yield f'"{file}" = "{" ".join(found[file])}"'


def short_name(path: Path) -> str:
    """A chapter's number, or the name of a notebook that has none."""
    return number if (number := path.stem[:2]).isdigit() else path.stem


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", default=[""], metavar="CHAPTER")
    parser.add_argument("--uses", action="store_true", help="print what uses each file of the package")
    options = parser.parse_args()
    try:
        execute(path for path in chapters() if path.stem.startswith(tuple(options.chapters)))
    except NotebookFailed as failure:
        sys.exit(str(failure))
    if options.uses:
        print(
            "# Which notebooks run again when a file changes. Made by python -m tools.notebooks --uses",
            *uses(),
            sep="\n",
        )
