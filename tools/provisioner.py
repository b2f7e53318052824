"""How ``jupyter_client`` starts a kernel that is a fork (``forked.py``), and asks whether it lives."""

from contextlib import suppress

import psutil
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import LocalProvisioner

from tools.forked import Source


class Forked(psutil.Process):
    """A kernel started by another process, with the part of ``subprocess.Popen`` that ``LocalProvisioner`` uses."""

    stdin = stdout = stderr = None

    def poll(self) -> int | None:
        return None if self.is_running() else 0

    def send_signal(self, sig: int) -> None:
        with suppress(psutil.NoSuchProcess):  # it has just ended by itself
            super().send_signal(sig)


class ForkingProvisioner(LocalProvisioner):
    """Starts kernels as forks of ``source``."""

    def __init__(self, source: Source, **traits) -> None:
        super().__init__(**traits)
        self.source = source

    async def launch_kernel(self, cmd: list[str], *, env: dict[str, str], cwd: str, **_) -> KernelConnectionInfo:
        self.pid = self.pgid = self.source.fork(cmd, env, cwd)
        self.process = Forked(self.pid)
        return self.connection_info
