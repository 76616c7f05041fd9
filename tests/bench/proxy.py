"""A proxy before MLflow's server that passes requests on, late or at once, or fails, or says nothing."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context

from tests.smoke.servers import NICENESS, free_port

SLOW_S = 2.0  # a request
BEHAVIOURS = ("well", "slow", "failing", "silent", "refusing")
OWN_HEADERS = ("connection", "content-length", "transfer-encoding")


class Proxy:
    """Each behaviour is a process of its own at the same port: open connections break where it changes.

    Attributes:
        uri: where it listens, once it has a behaviour.
    """

    def __init__(self, server_port: int) -> None:
        self._port, self._server_port = free_port(), server_port
        self._process = None
        self.uri = f"http://127.0.0.1:{self._port}"

    def be(self, behaviour: str) -> None:
        """Behave in another way from now on."""
        self.end()
        if behaviour == "refusing":
            return
        arguments = (self._port, self._server_port, behaviour)
        self._process = get_context("spawn").Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._port)):
                return
            assert self._process.is_alive(), "the proxy does not start"
            time.sleep(0.05)

    def end(self) -> None:
        """Listen no more."""
        if self._process:
            self._process.kill()
            self._process.join()
            self._process = None


def _serve(port: int, server_port: int, behaviour: str) -> None:
    os.nice(NICENESS)
    server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    server.server_port_behind, server.behaviour = server_port, behaviour
    server.serve_forever()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        if self.server.behaviour == "silent":
            threading.Event().wait()
        super().handle()

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):  # GET, POST, ...
            return self._pass_on
        raise AttributeError(name)

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.server.behaviour == "failing":
            self.send_error(500)
            return
        if self.server.behaviour == "slow":
            time.sleep(SLOW_S)
        connection = HTTPConnection("127.0.0.1", self.server.server_port_behind)
        connection.request(self.command, self.path, body, _others(self.headers.items()))
        answer = connection.getresponse()
        content = answer.read()
        self.send_response_only(answer.status)
        for name, value in _others(answer.getheaders()).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        connection.close()

    def log_message(self, format: str, *args: object) -> None:
        pass


def _others(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Without those that each connection has of its own."""
    return {name: value for name, value in headers if name.lower() not in OWN_HEADERS}
