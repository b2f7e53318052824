"""Small files in the formats of the classical data sets, and a local server that serves them well or badly."""

import gzip
import hashlib
import io
import struct
import tarfile
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

MNIST_COUNTS = {"train": 30, "t10k": 10}
FAULTS = ["truncated", "unannounced", "corrupted", "stalled", "missing", "failing"]


def idx(array: np.ndarray) -> bytes:
    """The gzipped idx file of an array of bytes, written from the format's description."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes())


def mnist_arrays() -> dict[str, np.ndarray]:
    """Random images and labels in MNIST's four arrays."""
    random, arrays = np.random.default_rng(1), {}
    for part, count in MNIST_COUNTS.items():
        arrays[f"{part}-images-idx3-ubyte.gz"] = random.integers(0, 256, (count, 28, 28))
        arrays[f"{part}-labels-idx1-ubyte.gz"] = random.integers(0, 10, count)
    return arrays


def cifar_archive(records: dict[str, list[tuple[int, bytes]]]) -> bytes:
    """The archive of CIFAR-10's binary form: for each member's name its pairs of a label and 3,072 bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, pairs in records.items():
            content = b"".join(bytes([label]) + pixels for label, pixels in pairs)
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def serve(files: dict[str, bytes]):
    """Serve ``files`` below /right/, /slow/ and each of /FAULTS/; gives (address, list of the paths asked for)."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            _, manner, name = self.path.split("/")
            content = files[name]
            if manner in ("missing", "failing"):
                self.send_error(404 if manner == "missing" else 503)
                return
            self.send_response(200)
            if manner == "marked":  # as gzip, which the client is to unpack, or so it says
                self.send_header("Content-Encoding", "gzip")
            if manner != "unannounced":
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            half = len(content) // 2
            if manner in ("truncated", "unannounced"):
                self.wfile.write(content[:half])
            elif manner == "corrupted":
                self.wfile.write(content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :])
            elif manner == "stalled":
                self.wfile.write(content[:half])
                self.wfile.flush()
                stopped.wait(20)
            elif manner == "slow":
                for start in range(0, len(content), 1 + len(content) // 8):
                    self.wfile.write(content[start : start + 1 + len(content) // 8])
                    self.wfile.flush()
                    time.sleep(0.05)
            else:
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    stopped = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        stopped.set()
        server.shutdown()
        server.server_close()
