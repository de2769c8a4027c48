"""Bound the time that a complete response takes to arrive, its head included.

httpx bounds only the silence between two reads. A server that sends a byte now and then could hold the sender for
ever, for example with an endless header or with one `100 Continue` after the other. So a timer shuts the connection
down, which ends a read that waits.
"""

import contextlib
import socket
import threading
from collections.abc import Mapping
from typing import Any

import httpx

WHOLE_RESPONSE_SECONDS = 300.0
"""How long a complete response may take by default."""
_CONNECTED = ("connect_tcp.complete", "start_tls.complete")
_RECEIVED = (
    "http11.receive_response_headers.complete", "http11.receive_response_headers.failed",
    "http11.receive_response_body.complete", "http11.receive_response_body.failed",
)  # fmt: skip


class ResponseTimer:
    """An event hook for the requests of one httpx.Client, which sends one request at a time.

    A response that is not complete `max_seconds` after its request was sent ends with httpx.ReadTimeout, unless the
    timer is stopped before.
    """

    def __init__(self, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer: threading.Timer | None = None
        self._is_over = False

    def __call__(self, request: httpx.Request) -> None:
        request.extensions["trace"] = self._trace

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith(_CONNECTED):
            self._socket = info["return_value"].get_extra_info("socket")
        elif event in ("http11.send_request_headers.started", "http11.response_closed.started"):
            self.stop()
        elif event == "http11.receive_response_headers.started":
            self._start()
        elif event in _RECEIVED and self._is_over:
            raise httpx.ReadTimeout("the response comes too slowly")

    def _start(self) -> None:
        self._is_over = False
        timer = threading.Timer(self._max_seconds, lambda: self._end(timer))
        timer.daemon = True
        self._timer = timer
        with contextlib.suppress(RuntimeError):  # Python starts no thread at its exit, which has its own time limit
            timer.start()

    def stop(self) -> None:
        """Let the rest of the current response take any time."""
        with self._lock:
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _end(self, timer: threading.Timer) -> None:
        with self._lock:  # httpx closes the socket only after `stop`, so its number cannot belong to another file yet
            if timer is self._timer and self._socket is not None:
                self._is_over = True
                with contextlib.suppress(OSError):
                    # SSLSocket.shutdown would make the waiting read return bytes that are not decrypted
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
