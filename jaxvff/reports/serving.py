"""A report that is served on this machine while its runs go on."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from jaxvff.core.errors import UserError
from jaxvff.runs import locks
from jaxvff.runs.files import METRICS_FILE, TABLE_FILE, TIMING_FILE

HOST = "127.0.0.1"  # nobody on the network sees it
State = list[tuple[object, ...]]
READ = (METRICS_FILE, TABLE_FILE, TIMING_FILE)


@contextmanager
def served(page: Callable[[], str], port: int) -> Iterator[str]:
    """Serve one page until the context ends; its address.

    Args:
      page: asked at every request.
      port: 0: any that is free.

    Raises:
      UserError: the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            # Another name for this machine is another site, whose pages may not read this one.
            named = self.headers.get("Host", "").partition(":")[0] in (HOST, "localhost")
            if not named or self.path.partition("?")[0] not in ("/", "/index.html"):
                self.send_error(404 if named else 403)
                return
            body = page().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("ETag", f'"{hashlib.blake2s(body, digest_size=8).hexdigest()}"')
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: a page asks every other second."""

    try:
        server = ThreadingHTTPServer((HOST, port), Handler)
    except OSError as error:
        raise UserError(
            f"port={port} cannot be served on: {error.strerror}; name another, or port=0 for one "
            "that is free"
        ) from error
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def renew(
    paths: Sequence[Path],
    every_s: float,
    write: Callable[[], object],
    goes_on: Callable[[], bool] = lambda: True,
    seen: State | None = None,
) -> None:
    """Write a page, and anew whenever its runs have reported, ended or begun.

    Args:
      paths: run folders and files.
      every_s: how often they are looked at, seconds.
      write: writes the page.
      goes_on: asked before each look.
      seen: the state that the page of now was made of; None: there is no page yet.
    """
    while goes_on():
        now = state(paths)
        if now != seen:
            try:
                write()
                seen = now
            except (UserError, OSError) as error:  # a run that begins anew, a full disk: the page
                print(f"jaxvff: {error}", file=sys.stderr)  # of before stays
        time.sleep(every_s)


def state(paths: Sequence[Path]) -> State:
    """What tells that a run goes on or has written: its lock; its files, their sizes and times."""
    files = [path for path in paths if path.is_file()]
    for path in paths:
        files += [f for name in READ for f in (path / name, *path.glob(f"*/{name}"))]
    found: State = [(str(path), locks.held(path)) for path in paths if path.is_dir()]
    for file in files:
        try:
            about = file.stat()
        except OSError:  # not there yet, or being replaced
            continue
        found.append((str(file), about.st_size, about.st_mtime_ns))
    return found
