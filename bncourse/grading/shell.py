"""A shell that runs a notebook's cells as a Jupyter kernel does, with nobody in front of it."""

import ast
import asyncio
import builtins
import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.history import HistoryManager
from IPython.core.interactiveshell import InteractiveShell

DEPTH = 1000  # Python's own limit of nested calls: a cell may raise it, not lower it
FRONT_END = "autosave clear cls connect_info doctest_mode edit ed less man more notebook qtconsole".split()


class Unseen(DisplayPublisher):
    """Takes what cells display, and keeps none of it."""

    def publish(self, data: Any = None, metadata: Any = None, **options: Any) -> None:
        pass


class Unprinted(DisplayHook):
    """Gives ``_`` and ``Out`` their values, and prints none."""

    def __call__(self, result: Any = None) -> None:
        if result is not None and not self.quiet():
            self.update_user_ns(result)


class ZMQInteractiveShell(InteractiveShell):
    """IPython's shell as a kernel has it; the name is the kernel's, since notebooks ask for it.

    What needs a front end (a GUI's event loop, the magics of ``FRONT_END``) does nothing. A magic that fails ends
    itself and not the cell: a student's machine may have the extension that this one lacks. Output is not kept.
    """

    displayhook_class = Unprinted
    display_pub_class = Unseen

    def __init__(self, **options: Any):
        HistoryManager.enabled = False  # no database
        super().__init__(**options)
        self.config.IPKernelApp.connection_file = ""  # "IPKernelApp" in get_ipython().config: a notebook
        self.failed_magics: list[Exception] = []
        with contextlib.suppress(Exception):
            self.extension_manager.load_extension("storemagic")  # as kernels do
        for name in FRONT_END:
            self.register_magic_function(_nothing, magic_name=name)
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)

    def execute(self, source: str) -> list[BaseException]:
        """Run a cell, in a running event loop as in a kernel; returns what was raised."""
        self.failed_magics.clear()
        try:
            asyncio.set_event_loop(self.loop)
            result = self.loop.run_until_complete(self._execute(source))
            errors = [result.error_before_exec, result.error_in_exec]
        except BaseException as error:  # it broke IPython
            errors = [error]
        if isinstance(errors[-1], ImportError):
            self._go_on(source, errors[-1])
        self.repair()
        return [error for error in (*self.failed_magics, *errors) if error is not None]

    async def _execute(self, source: str) -> Any:
        try:
            cell, failure = self.transform_cell(source), None
        except Exception:
            cell, failure = source, sys.exc_info()
        if self.should_run_async(source, transformed_cell=cell, preprocessing_exc_tuple=failure):
            return await self.run_cell_async(
                source, store_history=True, transformed_cell=cell, preprocessing_exc_tuple=failure
            )
        return self.run_cell(source, store_history=True)

    def _go_on(self, source: str, error: ImportError) -> None:
        """Run what comes after a failed import, each statement alone: the student's machine may have the module."""
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_globals is not self.user_ns:
            trace = trace.tb_next
        if trace is None:
            return
        for statement in ast.parse(self.transform_cell(source)).body:
            if statement.lineno > trace.tb_lineno:
                with contextlib.suppress(Exception):
                    exec(compile(ast.Module([statement], []), "<after a failed import>", "exec"), self.user_ns)

    def repair(self) -> None:
        """Make the session fit for the next cell, whatever the last one did to it."""
        for name in ("stdout", "stderr"):
            if getattr(getattr(sys, name, None), "closed", True):
                setattr(sys, name, open(os.devnull, "w", encoding="utf-8", errors="replace"))
        if getattr(getattr(sys, "stdin", None), "closed", True):
            sys.stdin = io.StringIO()
        if sys.getrecursionlimit() < DEPTH:
            sys.setrecursionlimit(DEPTH)
        for name, value in ORIGINAL_BUILTINS.items():
            if not hasattr(builtins, name):
                setattr(builtins, name, value)
        for kept in ("outputs", "exceptions"):
            getattr(self.history_manager, kept, {}).clear()

    def run_line_magic(self, magic_name: str, line: str, _stack_depth: int = 1) -> Any:
        try:
            return super().run_line_magic(magic_name, line, _stack_depth=_stack_depth + 1)
        except Exception as error:
            self.failed_magics.append(error)
            return None

    def run_cell_magic(self, magic_name: str, line: str, cell: str) -> Any:
        if self.find_cell_magic(magic_name) is None:
            exec(compile(self.transform_cell(cell), f"<%%{magic_name}>", "exec"), self.user_ns)
            return None
        return super().run_cell_magic(magic_name, line, cell)

    def enable_gui(self, gui: str | None = None) -> None:
        pass

    def ask_exit(self) -> None:  # exit() and quit()
        pass

    def showtraceback(self, *arguments: Any, **options: Any) -> None:
        pass

    showsyntaxerror = showindentationerror = showtraceback

    def _format_exception_for_storage(self, *arguments: Any, **options: Any) -> dict:
        return {}

    @contextlib.contextmanager
    def _tee(self, channel: str) -> Iterator[None]:
        yield


ORIGINAL_BUILTINS = dict(vars(builtins))


def _nothing(line: str = "", cell: str = "") -> None:
    """Do nothing, since the grader has no front end."""
