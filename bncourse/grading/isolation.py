"""Take a process away from the rest of the system, with Linux's namespaces, where the system allows them to users.

The process gets no network but a loopback of its own, sees no other process, and finds given folders empty. It does
what ``unshare``, ``mount`` and ``setpriv`` of util-linux do, but after a fork rather than a start, so that a process
which has imported torch once serves every submission.

Run as a program, this file tries all of it, and fails with the reason where the system refuses.
"""

import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterable

NEW_USER, NEW_MOUNTS, NEW_PROCESSES, NEW_NETWORK = 0x10000000, 0x00020000, 0x20000000, 0x40000000
NO_SET_UID, NO_DEVICES, NO_PROGRAMS, RECURSIVE, PRIVATE = 2, 4, 8, 0x4000, 0x40000  # of mount
PARENT_DEATH_SIGNAL, DROP_FROM_BOUNDING_SET, NO_NEW_PRIVILEGES, ADOPT_ORPHANS = 1, 24, 38, 36  # of prctl
READ_FLAGS, WRITE_FLAGS, UP = 0x8913, 0x8914, 1  # of a network interface
CAPABILITIES_VERSION_3 = 0x20080522


def detach() -> None:
    """Give this process new namespaces; the children that it forks from now on are isolated once they ``enter``.

    Raises:
        OSError: the system refuses.
    """
    user, group = os.getuid(), os.getgid()
    _call("unshare", NEW_USER | NEW_MOUNTS | NEW_PROCESSES | NEW_NETWORK)
    for name, content in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(content)


def enter(hidden: Iterable[str]) -> None:
    """In the first child of a detached process: cover the folders, then give up the right to uncover them.

    Raises:
        OSError: the system refuses.
    """
    _mount(None, "/", None, PRIVATE | RECURSIVE)
    _mount("proc", "/proc", "proc", NO_SET_UID | NO_DEVICES | NO_PROGRAMS)
    for folder in hidden:
        _mount("none", folder, "tmpfs", 0, "size=4k,mode=555")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack("16xh14x", fcntl.ioctl(any_socket, READ_FLAGS, request))
        fcntl.ioctl(any_socket, WRITE_FLAGS, struct.pack("16sh14x", b"lo", flags | UP))
    capability = 0
    while _libc().prctl(DROP_FROM_BOUNDING_SET, capability, 0, 0, 0) == 0:
        capability += 1
    _call("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    header, nothing = struct.pack("Ii", CAPABILITIES_VERSION_3, 0), struct.pack("6I", *[0] * 6)
    _call("capset", header, nothing)


def die_with_parent() -> None:
    """Have the kernel end this process when its parent ends, where the kernel can."""
    if sys.platform == "linux":
        _libc().prctl(PARENT_DEATH_SIGNAL, int(signal.SIGKILL), 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, where the kernel can."""
    if sys.platform == "linux":
        _libc().prctl(ADOPT_ORPHANS, 1, 0, 0, 0)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    _call("mount", *texts[:3], ctypes.c_ulong(flags), texts[3])


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc(), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name} is refused: {os.strerror(number)}")


def main() -> None:
    try:
        detach()
        if (child := os.fork()) == 0:
            enter([])
            os._exit(0)
    except OSError as error:
        sys.exit(str(error.strerror))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.exit(code and f"the first process of a new namespace ended with code {code}")


if __name__ == "__main__":
    main()
