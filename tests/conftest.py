"""What tests share: the book's pages and its explorers, made once in a run, a server for the pages, and a browser."""

import functools
import http.server
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
from filelock import FileLock

from bncourse import explorers
from tools.browser import program, started

hypothesis.settings.register_profile("same every time", derandomize=True)
hypothesis.settings.load_profile("same every time")

os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")  # the tests themselves run side by side
# Started in the background (``make test &``), they would ignore Ctrl-C, and so would the processes that they interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
LONG = ("test_environments.py", "test_devices.py", "test_specimens.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file that takes minutes does not come last, when the other worker has nothing left to do."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Each test draws the same numbers, whichever tests came before it in its process."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def building() -> FileLock:
    """Held while notebooks run or the book is built: one worker does it, the others wait."""
    (ROOT / "_build").mkdir(exist_ok=True)
    return FileLock(ROOT / "_build" / ".lock")


@pytest.fixture(scope="session")
def book(request, building) -> Path:
    """The folder of the built pages. Several workers may ask; one builds, and nobody a second time in a run."""
    run = getattr(request.config, "workerinput", {}).get("testrunuid", "alone")
    marker = ROOT / "_build" / ".built-for-tests"
    with building:
        if run == "alone" or not marker.exists() or marker.read_text() != run:
            command = [sys.executable, "-m", "tools.build"]
            result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if result.returncode:
                pytest.fail("the book cannot be built:\n" + result.stdout[-3000:], pytrace=False)
            marker.write_text(run)
    return ROOT / "_build" / "html"


@pytest.fixture(scope="module")
def forks() -> Iterator[None]:
    """The notebooks of a module's tests run in forks of one process, which has imported torch, with one thread."""
    from tools.forked import SAFE, Source
    from tools.notebooks import Executor, Progress

    if not SAFE:
        yield
        return

    environment = Executor(ROOT, Progress(0)).environment(Path(os.devnull), 1)
    with Source(environment) as source, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Executor, "source", source)
        patch.setattr(Executor.run, "__defaults__", (1,))
        yield


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture(scope="session")
def site(book):
    """The address of a server on this machine that has the built pages."""
    handler = functools.partial(QuietHandler, directory=str(book))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="session")
def browser():
    """The chromium that is installed."""
    path = program()
    if path is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    with started(path) as chromium:
        yield chromium


@pytest.fixture(scope="session")
def explorer(request, tmp_path_factory):
    """A function that gives an explorer by its name: one worker draws its hundreds of frames, the others read them."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if hasattr(request.config, "workerinput") else folder

    @functools.cache
    def made(name: str):
        kept = folder / f"{name}.pickle"
        with FileLock(f"{kept}.lock"):
            if not kept.exists():
                kept.write_bytes(pickle.dumps(getattr(explorers, name)()))
        return pickle.loads(kept.read_bytes())

    return made
