"""A web server on this machine that sends parts of files, and fails in the ways that servers do."""

import contextlib
import re
import threading
import zlib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class RangeServer(ThreadingHTTPServer):
    """Serves a folder.

    Args:
        folder: The folder.
    """

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        self.sends_parts = True
        self.cut_after = None  # bytes of a part after which the connection is cut
        self.failures = 0  # requests that are answered 503 before one is not
        self.has_versions = False  # whether answers have an ETag
        self.requests = []  # path and range of each
        self.url = f"http://127.0.0.1:{self.server_port}"

    request_queue_size = 128  # clients that connect at once

    def handle_error(self, request, client_address):
        """Say nothing of clients that go away."""


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append((self.path.partition("?")[0], self.headers["Range"]))
        if self.server.failures:
            self.server.failures -= 1
            self.send_error(503)
            return
        if not self.server.sends_parts:
            super().do_GET()
            return
        try:
            content = Path(self.translate_path(self.path)).read_bytes()
        except OSError:
            self.send_error(404)
            return
        first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
        part = content[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        if self.server.has_versions:
            self.send_header("ETag", f'"{zlib.crc32(content)}"')
        self.end_headers()
        self.wfile.write(part[: self.server.cut_after])

    def log_message(self, *args):
        """Print nothing."""


@contextlib.contextmanager
def serve(folder):
    """Serve a folder until the end of the block."""
    with RangeServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
