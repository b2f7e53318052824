"""Run the notebooks: a cache that sees the package, progress that can be watched, errors that say where.

MyST-NB executes a notebook while Sphinx reads it and keeps the result in a jupyter-cache whose key is the notebook's
code alone. Here the cache's folder carries a hash of the package and the pinned requirements as well: when one of
these changes, every notebook is executed again.
"""

import hashlib
import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

import myst_nb.core.execute
from jupyter_cache import get_cache
from jupyter_cache.cache.db import NbCacheRecord
from myst_nb.core.execute import cache as cached_execution
from nbclient.exceptions import CellTimeoutError
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

KEPT = 3  # cache folders, so that going back to an earlier version of the package is quick


class NotebookFailed(ExtensionError):
    category = "A notebook failed"


def key_of(root: Path) -> str:
    """A hash of all that a notebook's outputs depend on besides its own code."""
    digest = hashlib.sha256(sys.version.split()[0].encode())
    files = [path for path in (root / "bncourse").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    for path in [*sorted(files), root / "requirements.txt"]:
        if path.is_file():
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def choose_cache(app: Sphinx, config) -> None:
    caches = Path(app.outdir).parent / ".cache"
    folder = caches / key_of(Path(app.srcdir).parent)
    folder.mkdir(parents=True, exist_ok=True)
    folder.touch()
    for old in sorted(caches.iterdir(), key=lambda path: path.stat().st_mtime)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    config.nb_execution_cache_path = str(folder)


class Client(cached_execution.NotebookClientCache):
    """MyST-NB's client; an entry that a killed build left half written is executed again instead of failing."""

    def start_client(self) -> None:
        cache = get_cache(self.nb_config.execution_cache_path)
        with suppress(KeyError):  # no entry
            entry = cache.match_cache_notebook(self.notebook)
            try:
                cache.get_cache_bundle(entry.pk)
            except Exception:
                NbCacheRecord.remove_records([entry.pk], cache.db)
        super().start_client()


class Progress:
    """Says which notebook runs, its place among those to read, the cell and the seconds."""

    def __init__(self, app: Sphinx) -> None:
        self.app, self.names, self.current, self.seconds = app, [], "", 0.0
        app.connect("env-before-read-docs", self.before_reading)
        app.connect("source-read", self.reading)
        app.connect("env-updated", self.after_reading)

    def before_reading(self, app: Sphinx, env, names: list[str]) -> None:
        self.names = [name for name in names if env.doc2path(name).endswith(".ipynb")]

    def reading(self, app: Sphinx, name: str, source: list[str]) -> None:
        self.current = name

    def after_reading(self, app: Sphinx, env) -> None:
        if self.names:
            print(f"notebooks: {len(self.names)} read, {self.seconds:.1f} s of execution", flush=True)

    def execute(self, notebook, **options):
        """Like jupyter-cache's ``single_nb_execution``; a cell that fails ends the build."""
        place = f" ({self.names.index(self.current) + 1} of {len(self.names)})" if self.current in self.names else ""
        title = f"running {self.current}{place}"
        print(f"\n{title}: {len(notebook.cells)} cells", flush=True)
        started = time.perf_counter()

        def show_cell(cell, cell_index: int) -> None:
            if sys.stdout.isatty():
                elapsed = time.perf_counter() - started
                print(
                    f"\r{title}: cell {cell_index + 1} of {len(notebook.cells)}, {elapsed:.0f} s  ", end="", flush=True
                )

        try:
            quiet = ["--IPKernelApp.log_level=40"]  # errors only
            result = single_nb_execution(notebook, on_cell_start=show_cell, extra_arguments=quiet, **options)
        except Exception as error:  # not a cell's own: the kernel is gone
            reason = f"its kernel was stopped: interrupted, or out of memory ({type(error).__name__})"
            raise NotebookFailed(f"{self.current}.ipynb: {reason}") from error
        self.seconds += result.time
        if result.err is not None:
            raise NotebookFailed(describe_failure(self.current, notebook, result.err))
        print(f"{chr(13) if sys.stdout.isatty() else ''}{title}: done in {result.time:.1f} s", flush=True)
        return result


def describe_failure(name: str, notebook, error: Exception) -> str:
    """The notebook, the cell (counted from 1, its code with it) and the error."""
    late = "took too long: " if isinstance(error, CellTimeoutError) else ""
    for index, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                code = "\n".join(f"    {line}" for line in cell.source.splitlines())
                where = f"{name}.ipynb, cell {index} of {len(notebook.cells)}"
                return f"{where}: {late}{output.ename}: {output.evalue}\n{code}"
    return f"{name}.ipynb: {type(error).__name__}: {error}"


single_nb_execution = cached_execution.single_nb_execution


def setup(app: Sphinx) -> dict:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin make a busy machine five times slower
    os.environ["TQDM_DISABLE"] = "1"  # the notebooks' kernels inherit it: a page needs no progress bars
    app.connect("config-inited", choose_cache)
    myst_nb.core.execute.NotebookClientCache = Client
    cached_execution.single_nb_execution = Progress(app).execute
    return {"parallel_read_safe": False}
