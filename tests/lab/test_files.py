"""A file is written whole or not at all, and an error names the file and the reason."""

import errno
import os
import subprocess
import sys
import textwrap

import pytest

from bncourse.files import write_whole


def test_a_file_is_written_and_replaced_with_its_folders(tmp_path):
    path = tmp_path / "new" / "folder" / "table.csv"
    for content in (b"one", b"another"):
        write_whole(path, content)
        assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == ["table.csv"]


def test_a_full_disk_leaves_what_was_there(tmp_path):
    """A limit on the size of files stands in for a full disk: the write fails half way."""
    resource = pytest.importorskip("resource")
    path, limits = tmp_path / "table.csv", resource.getrlimit(resource.RLIMIT_FSIZE)
    write_whole(path, b"before")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError) as raised:
            write_whole(path, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(raised.value) == f"[Errno {errno.EFBIG}] {os.strerror(errno.EFBIG)}: {str(path)!r}"
    assert path.read_bytes() == b"before" and [file.name for file in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.parametrize("make", ["file", "folder"])
def test_a_place_that_cannot_be_written_is_named(tmp_path, make):
    path = tmp_path / "there" / "table.csv"
    if make == "file":
        path.parent.write_text("a file, where a folder is needed")
    else:
        path.mkdir(parents=True)
    with pytest.raises(OSError) as raised:
        write_whole(path, b"content")
    assert repr(str(path)) in str(raised.value) and os.strerror(raised.value.errno) in str(raised.value)
    assert "checkpoint" not in str(raised.value), "it writes tables too"
    assert list(tmp_path.rglob("*.part")) == []


def test_a_reader_never_sees_a_part(tmp_path):
    """Another process replaces the file again and again, and is killed."""
    path = tmp_path / "numbers"
    write = textwrap.dedent(f"""
        from itertools import cycle
        from bncourse.files import write_whole
        for digit in cycle(b"0123456789"):
            write_whole({str(path)!r}, bytes([digit]) * 200_000)
    """)
    process = subprocess.Popen([sys.executable, "-c", write])
    try:
        while not path.exists():
            assert process.poll() is None
        for _ in range(200):
            seen = path.read_bytes()
            assert len(seen) == 200_000 and len(set(seen)) == 1
    finally:
        process.kill()
        process.wait(30)
    seen = path.read_bytes()
    assert len(seen) == 200_000 and len(set(seen)) == 1
