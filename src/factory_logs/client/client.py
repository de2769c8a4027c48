"""The client for scripts without an event loop: `send` stores a log on disk, and a thread delivers it."""

import atexit
import os
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from factory_logs import device_environment
from factory_logs.client import forks
from factory_logs.client.delivery import ServerLink
from factory_logs.client.errors import ClosedError, SpoolError, SpoolFullError
from factory_logs.client.outbox import Outbox
from factory_logs.client.sender import Sender
from factory_logs.client.sender_thread import FlushThread, SenderThread
from factory_logs.client.settings import ClientSettings, checked_url, tls_verification
from factory_logs.client.spool import FilePosition, RejectedLine, Spool, SpoolTotals
from factory_logs.client.spool_file import SpoolFile
from factory_logs.client.spool_line import log_line
from factory_logs.client.spool_lock import SenderStatus, SpoolLock
from factory_logs.client.token_source import environment_source, token_source
from factory_logs.schemas.record_limits import RecordLimits

ROOM_POLL_SECONDS = 0.1
STOP_SECONDS = 2.0
DEFAULTS = ClientSettings()
CLOCK_TICK = timedelta(milliseconds=20)
"""The largest step of a system's clock (Windows: 15.6 ms). Within one step, each log gets its own microsecond."""

_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Status:
    """The spool's counts, and the reason why no log is delivered (None if logs are delivered)."""

    totals: SpoolTotals
    trouble: str | None


class Client:
    """Sends logs to a Factory Logs server through a spool on disk. Several threads may share a client.

    Pass exactly one of `token`, `token_file`, and `username` with `password`. Several processes may share a spool; one
    of them sends. Raises SpoolError if the spool folder cannot be used. Raises ValueError for an invalid URL or CA
    file, or if the credentials are not exactly one of the three kinds.
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
        self._url = checked_url(url)
        tls_verification(settings.ca_file)  # report an invalid file now, not later in the sender's thread
        self._tokens = token_source(token, token_file, username, password)
        self._transport = transport
        self.folder = Path(spool)
        self.limits = RecordLimits(settings.max_record_bytes, settings.max_nesting)
        self.spool = Spool(
            self.folder,
            fsync=settings.fsync,
            max_bytes=settings.max_spool_bytes,
            when_full=settings.when_full,
            reserve_bytes=settings.reserve_bytes,
        )
        self._lock = threading.RLock()  # a signal handler may send a log at any time
        self._last_time = datetime.min.replace(tzinfo=UTC)
        self._closed = False
        self.spool.totals()  # report an unusable spool now, not later during a test
        self._start()
        atexit.register(self.close)  # this also keeps a client alive that its script has dropped without closing it

    @classmethod
    def from_environment(cls, settings: ClientSettings | None = None) -> Self:
        """Return a client for the server, credentials and spool in the environment variables of the device commands.

        If `settings` is not given, FACTORY_LOGS_CA_FILE is used. Raises ValueError if a variable is missing or wrong,
        SpoolError.
        """
        url = os.environ.get(device_environment.URL)
        if not url:
            raise ValueError(f"{device_environment.URL} is not set; it names the server")
        ca_file = os.environ.get(device_environment.CA_FILE)
        folder = Path(os.environ.get(device_environment.SPOOL) or device_environment.DEFAULT_SPOOL).expanduser()
        names = (
            device_environment.TOKEN, device_environment.TOKEN_FILE,
            device_environment.USERNAME, device_environment.PASSWORD,
        )  # fmt: skip
        token, token_file, username, password = (os.environ.get(name) or None for name in names)
        environment_source()  # called only for its error, which names the variables
        return cls(
            url,
            token,
            spool=folder,
            token_file=token_file,
            username=username,
            password=password,
            settings=settings or ClientSettings(ca_file=Path(ca_file) if ca_file else None),
        )

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
        """Store one log on the device's disk (see `fsync`) for delivery, without waiting for the network.

        `timestamp` is the current time by default. A datetime without zone is local time, text without zone is UTC.
        Raises InvalidLogError if the server would reject the log, SpoolFullError, SpoolError, ClosedError.
        """
        record = {
            "app_name": app_name,
            "product_imei": product_imei,
            "repair_id": repair_id,
            "timestamp": self.now() if timestamp is None else timestamp,
            "tags": tags,
            "fields": fields,
        }
        self.put([log_line(record, self.limits)])

    def send_many(self, records: Iterable[Mapping[str, object]]) -> int:
        """Store many logs at once, all or none, and return their number. Each log is a mapping with the parameters of
        `send` as keys.

        Raises the errors of `send`.
        """
        lines = [log_line({"timestamp": self.now(), **record}, self.limits) for record in records]
        self.put(lines)
        return len(lines)

    def put(
        self, lines: list[bytes], rejects: list[RejectedLine] | None = None, position: FilePosition | None = None
    ) -> None:
        """Store valid lines. If the spool is full, follow the setting `when_full`."""
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
                    self._sender.hurry()  # only once: an unreachable server must not get a request in every round
                if time.monotonic() >= deadline:
                    raise
            self._sender.wait_for_change(min(ROOM_POLL_SECONDS, deadline - time.monotonic()))
        self._sender.wake()
        if self._flusher is not None:
            self._flusher.wake()

    def now(self) -> datetime:
        """Return the current time in UTC. Logs within one tick of the clock get successive microseconds.

        If the clock is set back, the times go back at once: logs are ordered by their numbers, not by their times.
        """
        with self._lock:
            now = datetime.now(UTC)
            if now <= self._last_time < now + CLOCK_TICK:
                now = self._last_time + _MICROSECOND
            self._last_time = now
            return now

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until no log in the spool waits for the server, for at most `timeout` seconds. Return whether this is
        so.

        If it returns True, each log is stored on the server, or was rejected and set aside; `status` counts the
        rejected logs.
        """
        self._ensure_running()
        deadline = None if timeout is None else time.monotonic() + timeout
        self._sender.hurry()
        while self.spool.totals().pending:
            left = ROOM_POLL_SECONDS if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            self._sender.wait_for_change(min(ROOM_POLL_SECONDS, left))
        return True

    def status(self) -> Status:
        """Return the spool's counts and the reason why no log is delivered."""
        return Status(self.spool.totals(), self._trouble())

    def _trouble(self) -> str | None:
        """Return the reason why no log is delivered, according to the process that sends."""
        if not self._sender.is_elsewhere:
            return self._sender.trouble
        recorded = SenderStatus(self.folder).read()
        return None if recorded is None else recorded.message

    def close(self) -> None:
        """Stop sending. If the connection works, the client sends the remaining logs for at most `exit_seconds`; logs
        that are not sent by then stay in the spool."""
        if self._closed or self._pid != os.getpid():
            return
        self._closed = True
        atexit.unregister(self.close)
        deadline = time.monotonic() + self.settings.exit_seconds
        self._sender.hurry()
        with suppress(SpoolError):  # the sender logs it
            while self._trouble() is None and time.monotonic() < deadline and self.spool.totals().pending:
                self._sender.wait_for_change(min(ROOM_POLL_SECONDS, deadline - time.monotonic()))
        if self._flusher is not None:
            self._flusher.stop()
        self._sender.stop(STOP_SECONDS)
        self.spool.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        """Start the threads of this process."""
        # The sender always flushes: idempotency keys must survive a power cut.
        file = SpoolFile(self.folder, "full", self.settings.reserve_bytes)
        outbox = Outbox(file)
        link = ServerLink(self._url, self._tokens, self.settings, self._transport)

        def at_end() -> None:
            link.close()
            file.close()

        steps = Sender(outbox, link, self.settings)
        report = SenderStatus(self.folder).write
        self._sender = SenderThread(steps, SpoolLock(self.folder), self.settings, file.check, at_end, report)
        self._sender.start()
        self._flusher = FlushThread(outbox.flush, self.settings) if self.settings.fsync == "normal" else None
        if self._flusher is not None:
            self._flusher.start()
        self._pid = os.getpid()

    def _ensure_running(self) -> None:
        """Start the threads if this is a forked child. Raises ClosedError."""
        if self._closed:
            raise ClosedError("the client is closed")
        if self._pid != os.getpid():
            with forks.lock:
                if self._pid != os.getpid():
                    self._lock = threading.RLock()
                    self._start()
