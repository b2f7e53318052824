"""How chapters 8, 14 and 15 start processes: where it can, as copies of one that has imported torch."""

import multiprocessing
import sys

__all__ = ["start_method"]


def start_method() -> str:
    """A start method of ``multiprocessing`` whose processes are clean: they share no memory with the one that asks.

    On Linux that is "forkserver", with a server that imports once what takes each process seconds; elsewhere "spawn".
    """
    if sys.platform != "linux":
        return "spawn"
    needed = ["bncourse.studies.many_devices", "torch._dynamo"]  # the latter is imported by DistributedDataParallel
    multiprocessing.get_context("forkserver").set_forkserver_preload(needed)
    return "forkserver"
