"""A page on this machine: a server with the guard before it, an address with a token, and an end at Ctrl-C."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable
from types import FrameType

import uvicorn

from sharpen.errors import RecipeError
from sharpen.serving.guard import App, Guard
from sharpen.serving.requests import EVERYWHERE, LOOPBACK, MOST_HEADER_BYTES, Served
from sharpen.system.printable import printable
from sharpen.system.signals import stopped_at_once

HOST, PORT = "127.0.0.1", 8765
TRIED = 10
"""So many ports from `PORT` on, and then any free one."""
MOST_REQUESTS = 64
"""At once; more are answered with 503."""
END_WITHIN_S = 3
"""How long requests may take to end after Ctrl-C."""
KILL_AFTER_S = 8.0

Say = Callable[[str], object]


def serve(
    app: App,
    *,
    ending: threading.Event,
    host: str = HOST,
    port: int | None = None,
    open_browser: bool = False,
    say: Say,
    warn: Say,
) -> None:
    """Serve ``app`` until a signal ends it, which raises `Stopped`; ``ending`` is set then, for what has no end itself.

    ``port`` None: `PORT`, or another one if that is taken. ``say`` is told the address, ``warn`` who else can reach it.
    Raises RecipeError if the address cannot be listened on.
    """
    listening = _listening(host, port)
    with listening:
        token = secrets.token_urlsafe(32)
        served = Served.at(host, listening.getsockname()[1], (socket.gethostname(), socket.getfqdn()))
        address = f"http://{_shown(host)}:{served.port}/?token={token}"
        config = uvicorn.Config(
            Guard(app, served, token),
            # Its own parser, whose limits hold before the guard sees a request.
            http="h11",
            h11_max_incomplete_event_size=2 * MOST_HEADER_BYTES,
            ws="none",
            lifespan="off",
            # The first address has the token.
            access_log=False,
            log_config=None,
            # Whom a request says that it comes from does not count here.
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MOST_REQUESTS,
            timeout_graceful_shutdown=END_WITHIN_S,
        )
        with stopped_at_once():
            _log_printable()
            say(address)
            if served.any_address or _bare(host) not in LOOPBACK:
                warn(
                    f"Not this machine alone: whoever reaches it on port {served.port} and has the address can read "
                    "these pages, and whoever reads the network can read the address. Nothing is encrypted."
                )
            if open_browser:
                webbrowser.open(address)
            _Server(config, ending).run(sockets=[listening])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ending: threading.Event) -> None:
        super().__init__(config)
        self._ending = ending

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._ending.set()
        # A request that reads a large file goes on in its thread, and Python waits for threads.
        killing = threading.Timer(KILL_AFTER_S, os._exit, (128 + sig,))
        killing.daemon = True
        killing.start()
        super().handle_exit(sig, frame)


def _listening(host: str, port: int | None) -> socket.socket:
    tried = [port] if port is not None else [*range(PORT, PORT + TRIED), 0]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        one = tried.pop(0)
        try:
            return socket.create_server((host, one), family=family)
        except OSError as error:
            if not tried or error.errno != errno.EADDRINUSE:
                raise RecipeError(f"cannot listen on {host}, port {one}: {error.strerror}") from error


def _bare(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _shown(host: str) -> str:
    """The host in the printed address: an address that means all interfaces is none to go to."""
    return socket.gethostname() if host in EVERYWHERE else _bare(host)


class _Printable(logging.Formatter):
    """An error's traceback may quote what a model wrote."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _log_printable() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_Printable("%(levelname)s: %(message)s"))
    logger = logging.getLogger("uvicorn")
    logger.handlers = [handler]
    logger.setLevel(logging.ERROR)
    logger.propagate = False
