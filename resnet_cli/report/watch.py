"""Update a page while runs go on, in a file or served to browsers on this machine."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from resnet_cli.errors import InputError

ADDRESS = "127.0.0.1"  # reachable from another machine only through a tunnel
NAMES = ("127.0.0.1", "localhost", "[::1]")  # of this machine: another name in `Host` is that of a web site


class Pages:
    """The present page, which a thread of the server reads."""

    def __init__(self) -> None:
        self.content = b""

    def show(self, text: str) -> None:
        """Replace the page."""
        self.content = text.encode()


def watch(
    make_page: Callable[[], str], show: Callable[[str], object], seconds: float, ended: threading.Event
) -> None:  # fmt: skip
    """Show a page every few seconds.

    Args:
        make_page: Returns the page.
        show: Shows it.
        seconds: Time between two pages; longer if making a page takes longer.
        ended: Ends the loop when it is set.
    """
    while not ended.wait(seconds):
        show(make_page())


@contextmanager
def served(pages: Pages, port: int) -> Iterator[str]:
    """Serve the page on the loopback address inside the block, and yield its address.

    Args:
        pages: The page.
        port: The port; 0 chooses a free one.

    Raises:
        InputError: the port is in use, or not allowed.
    """

    class Handler(_Handler):
        shown = pages

    try:
        server = _Server((ADDRESS, port), Handler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"--serve {port}: cannot listen on {ADDRESS}: {reason}") from None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{ADDRESS}:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print an error, unless the browser has gone while it was answered."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD of the one page, to browsers that ask for this machine by its name."""

    shown: Pages

    def do_GET(self) -> None:
        """Send the page."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Send the headers of the page."""
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        host = (self.headers.get("Host") or "").rpartition(":")
        name = host[0] if host[1] and host[2].isdigit() else "".join(host)
        if name not in NAMES:
            self.send_error(403)
            return
        if self.path.partition("?")[0] != "/":
            self.send_error(404)
            return
        content = self.shown.content
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name in http.server
        """Print nothing."""
