"""Kernels that have imported the libraries before they start: forks of one process, the *source*.

Every chapter needs torch, matplotlib and scikit-learn, which take a process some seven seconds to import, more than
many of its experiments. The source imports them once and nothing of the course, so that each kernel still notes which
of its files it reads.
"""

import atexit
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import threading

SAFE = sys.platform == "linux"  # elsewhere a fork of these libraries may crash
LIBRARIES = (
    "IPython",
    "ipykernel.kernelapp",
    "matplotlib.backends.backend_svg",
    "matplotlib.pyplot",
    "matplotlib_inline.backend_inline",
    "numba",
    "sklearn.datasets",
    "torch",
    "torch._dynamo",  # an optimizer imports it
)


class Source:
    """The process that kernels are forks of; a context. It ends with the context or its caller, and they with it."""

    def __init__(self, environment: dict[str, str]) -> None:
        command = [sys.executable, "-P", __file__]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
        self.process.stdout.readline()  # it has imported all
        self.lock = threading.Lock()

    def fork(self, command: list[str], environment: dict[str, str], folder: str) -> int:
        """Start a kernel as ``command`` would, in a session of its own; return its process ID."""
        kernel = {"arguments": command[command.index("-f") :], "environment": environment, "folder": folder}
        with self.lock:
            print(json.dumps(kernel), file=self.process.stdin, flush=True)
            return int(self.process.stdout.readline())

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_) -> None:
        with self.process:
            self.process.stdin.close()


def serve() -> dict | None:
    """Fork for each line that comes; return, in a fork what it is to be, in the source nothing."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a kernel
    print("ready", flush=True)
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            return json.loads(line)
        print(child, flush=True)


def become_kernel(arguments: list[str], environment: dict[str, str], folder: str) -> None:
    """What a new process would be that runs ``ipykernel_launcher``."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    importlib.reload(importlib.import_module("sitecustomize"))  # note what is read, as from the start of a process
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance(argv=[*arguments, f"--IPKernelApp.parent_handle={os.getppid()}"])  # it ends with the source
    atexit._run_exitfuncs()
    os._exit(0)  # without taking the libraries apart


if __name__ == "__main__":
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.freeze()  # a fork that collected what all share would copy it
    if kernel := serve():
        become_kernel(**kernel)
