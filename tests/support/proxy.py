"""A tiny HTTP proxy in a thread: passes every request on to one server, with a prefix of its own before each path."""

import http.client
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SKIPPED = {"connection", "transfer-encoding", "content-length", "host"}


@contextmanager
def proxied(
    target: str, prefix: str, *, strips: bool, says: Mapping[str, str] | None = None, without: Sequence[str] = ()
) -> Iterator[str]:
    """Serve `target` under `prefix` on a free port of 127.0.0.1; yields the address to use.

    `strips`: the prefix is taken off before a request is passed on. `says`: headers added to each. Requests outside
    the prefix get 502, so an address that forgot the prefix is found out. `without`: words that make a request 400 and
    that no answer has, as from a server that does not know them.
    """
    to = urlsplit(target)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            if not self.path.startswith(f"{prefix}/") and self.path != prefix:
                self.send_response(502)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            path = (self.path.removeprefix(prefix) or "/") if strips else self.path
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if any(word.encode() in body for word in without):
                self.send_response(400)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            headers = {key: value for key, value in self.headers.items() if key.lower() not in SKIPPED}
            headers["Host"] = self.headers["Host"]
            behind = http.client.HTTPConnection(to.hostname or "", to.port, timeout=30)
            behind.request(self.command, path, body, {**headers, **(says or {})})
            answer = behind.getresponse()
            content = answer.read()
            for word in without:
                content = content.replace(word.encode(), b"x" * len(word))
            self.send_response(answer.status)
            for key, value in answer.getheaders():
                if key.lower() not in SKIPPED:
                    self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            behind.close()

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _pass_on  # noqa: N815 - the library's names

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{prefix}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
