"""The device's client for scripts without an event loop: `send` stores on the disk, a thread does the rest."""

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from factory_logs.client import forks
from factory_logs.client.background import Background, Flusher
from factory_logs.client.credentials import Credentials, FixedToken, Login, TokenFile
from factory_logs.client.delivery import Link
from factory_logs.client.errors import ClosedError, SpoolFullError
from factory_logs.client.lines import line_of
from factory_logs.client.outbox import Outbox
from factory_logs.client.sender import Sender
from factory_logs.client.settings import ClientSettings
from factory_logs.client.spool import Position, Reject, Spool, Totals
from factory_logs.client.spool_file import SpoolFile
from factory_logs.client.spool_lock import SpoolLock
from factory_logs.schemas.storable import Limits

ROOM_POLL_SECONDS = 0.1
STOP_SECONDS = 2.0
DEFAULTS = ClientSettings()

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Status:
    """What the spool holds and has done, and why nothing gets through at the moment (None where it does)."""

    totals: Totals
    trouble: str | None


class Client:
    """Sends logs to a Factory Logs server by way of a spool on the disk. Safe to share between threads.

    Give a `token`, a `token_file`, or `username` and `password`. Several processes may share a spool; one of them
    sends. Raises SpoolError where the spool folder cannot be used, ValueError for a wrong URL or no way to a token.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        spool: str | os.PathLike[str],
        token_file: str | os.PathLike[str] | None = None,
        username: str | None = None,
        password: str | None = None,
        settings: ClientSettings = DEFAULTS,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.settings = settings
        self._url = _checked(url)
        self._credentials = credentials_of(token, token_file, username, password)
        self._transport = transport
        self.folder = Path(spool)
        self.limits = Limits(settings.max_record_bytes, settings.max_nesting)
        self.spool = Spool(
            self.folder, fsync=settings.fsync, max_bytes=settings.max_spool_bytes, when_full=settings.when_full
        )
        self._lock = threading.Lock()
        self._last_time = datetime.min
        self._closed = False
        self.spool.totals()  # a spool that cannot be used is an error here, not in the middle of a test
        self._start()
        self._at_exit = _close_at_exit(self)

    def send(
        self,
        app_name: str,
        *,
        product_imei: str | None = None,
        repair_id: int | None = None,
        timestamp: datetime | str | int | None = None,
        tags: object = None,
        fields: object = None,
    ) -> None:
        """Take one log. It is on the device's disk when this returns (see `fsync`); the network plays no part.

        `timestamp` is now where it is not given; a datetime without zone is UTC. Raises InvalidLogError where the
        server would reject the log, SpoolFullError, SpoolError, ClosedError.
        """
        record = {
            "app_name": app_name,
            "product_imei": product_imei,
            "repair_id": repair_id,
            "timestamp": self.now() if timestamp is None else timestamp,
            "tags": tags,
            "fields": fields,
        }
        self.put([line_of(record, self.limits)])

    def send_many(self, records: Iterable[Mapping[str, object]]) -> int:
        """Take many logs in one go, all or none, each with the names that `send` has; how many those were.

        Raises what `send` raises; an InvalidLogError says which of them is wrong.
        """
        lines = [line_of({"timestamp": self.now(), **record}, self.limits) for record in records]
        self.put(lines)
        return len(lines)

    def put(self, lines: list[bytes], rejects: list[Reject] | None = None, position: Position | None = None) -> None:
        """Spool lines that are checked already; waits for room as `when_full` says."""
        self._ensure_running()
        deadline: float | None = None
        while True:
            try:
                self.spool.put(lines, rejects or (), position)
                break
            except SpoolFullError:
                if self.settings.when_full != "block":
                    raise
                if deadline is None:
                    deadline = time.monotonic() + self.settings.block_seconds
                    self._background.hurry()  # once: a server that is down must not be asked at every turn
                if time.monotonic() >= deadline:
                    raise
            self._background.wait_for_change(min(ROOM_POLL_SECONDS, deadline - time.monotonic()))
        self._background.wake()
        if self._flusher is not None:
            self._flusher.wake()

    def now(self) -> datetime:
        """The time in UTC, never the same twice, so that each log of this client can be told from the others."""
        with self._lock:
            self._last_time = max(datetime.now(UTC).replace(tzinfo=None), self._last_time + _MICROSECOND)
            return self._last_time

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until the server has every log of the spool, at most `timeout` seconds; whether it has."""
        self._ensure_running()
        deadline = None if timeout is None else time.monotonic() + timeout
        self._background.hurry()
        while self.spool.totals().pending:
            left = ROOM_POLL_SECONDS if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            self._background.wait_for_change(min(ROOM_POLL_SECONDS, left))
        return True

    def status(self) -> Status:
        return Status(self.spool.totals(), self._background.trouble)

    def close(self) -> None:
        """Stop sending, having given a working link `exit_seconds` to take what is left. The rest stays spooled."""
        if self._closed or self._pid != os.getpid():
            return
        self._closed = True
        atexit.unregister(self._at_exit)
        deadline = time.monotonic() + self.settings.exit_seconds
        self._background.hurry()
        while self._background.trouble is None and time.monotonic() < deadline and self.spool.totals().pending:
            self._background.wait_for_change(min(ROOM_POLL_SECONDS, deadline - time.monotonic()))
        if self._flusher is not None:
            self._flusher.stop()
        self._background.stop(STOP_SECONDS)
        self.spool.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        """Begin sending, in this process."""
        file = SpoolFile(self.folder, "full")  # what the sender writes is always flushed: keys must outlive a power cut
        outbox = Outbox(file)
        link = Link(self._url, self._credentials, self.settings, self._transport)

        def at_end() -> None:
            link.close()
            file.close()

        sender = Sender(outbox, link, self.settings)
        self._background = Background(sender, SpoolLock(self.folder), self.settings, file.check, at_end)
        self._background.start()
        self._flusher = Flusher(outbox.flush, self.settings) if self.settings.fsync == "normal" else None
        if self._flusher is not None:
            self._flusher.start()
        self._pid = os.getpid()

    def _ensure_running(self) -> None:
        """Raises ClosedError. A forked child begins with threads of its own."""
        if self._closed:
            raise ClosedError("the client is closed")
        if self._pid != os.getpid():
            with forks.lock:
                if self._pid != os.getpid():
                    self._lock = threading.Lock()
                    self._start()


def credentials_of(
    token: str | None, token_file: str | os.PathLike[str] | None, username: str | None, password: str | None
) -> Credentials:
    """The one way to a token that was given. Raises ValueError for none or several."""
    ways = [token is not None, token_file is not None, username is not None or password is not None]
    if ways.count(True) != 1:
        raise ValueError("give one of: token, token_file, or username and password")
    if token is not None:
        if not token or not token.isascii() or not token.isprintable():
            raise ValueError("the token must be printable ASCII")
        return FixedToken(token)
    if token_file is not None:
        return TokenFile(Path(token_file))
    if username is None or password is None:
        raise ValueError("a login needs both username and password")
    return Login(username, password)


def _checked(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"the URL is not valid: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError("the URL must be like https://logs.example.com")
    return url


def _close_at_exit(client: Client) -> Callable[[], None]:
    """Let the end of a script be like close(), without keeping a client alive that nobody uses any more."""
    reference = weakref.ref(client)

    def close() -> None:
        alive = reference()
        if alive is not None:
            alive.close()

    atexit.register(close)
    return close
