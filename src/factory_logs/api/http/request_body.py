"""Read request bodies: check the type and the encoding, decompress, and enforce the limits on size and time
(docs/reference/http-api.md#compression).

A byte order mark at the beginning is removed, because editors on Windows write one.
"""

import asyncio
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Self

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from factory_logs.api.http.content_coding import Decoder, check_ratio, decoder
from factory_logs.api.http.exchange import find_exchange
from factory_logs.api.http.responses import route_path
from factory_logs.api.services import Services
from factory_logs.errors import RequestTimeoutError, TooLargeError, UnsupportedMediaTypeError
from factory_logs.ingest.body_spool import BodyBudget, BodySpool
from factory_logs.ingest.idempotency import KeyedBody, WriteKey, key_of
from factory_logs.settings import Settings

JSON_TYPES = (b"application/json", b"application/vnd.api+json")
NDJSON_TYPES = (b"application/x-ndjson", b"application/ndjson")


class Body:
    """The body of one request. A context manager that releases its share of the memory budget at the end."""

    def __init__(
        self,
        headers: Mapping[bytes, bytes],
        receive: Receive,
        settings: Settings,
        budget: BodyBudget,
        max_bytes: int | None = None,
    ) -> None:
        """Read the body of `request`. Pass `max_bytes` for a call with a smaller limit than the setting.

        Raises TooLargeError if Content-Length is over the limit, UnsupportedMediaTypeError for an unsupported encoding.
        """
        self._receive = receive
        self._settings = settings
        self._budget = budget
        self._max_bytes = max_bytes or settings.max_body_bytes
        self._held = 0
        self._spool: BodySpool | None = None
        self._timed_out = False
        self._content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        encoding = headers.get(b"content-encoding")
        self._decoder: Decoder | None = (
            None if encoding is None else decoder(encoding.decode("latin-1"), settings.max_compressed_members)
        )
        announced = headers.get(b"content-length", b"")
        self._announced = int(announced) if announced.isdigit() else None
        if self._announced is not None:
            self._check_size(self._announced)

    @property
    def is_ndjson(self) -> bool:
        return self._content_type in NDJSON_TYPES

    def is_announced_within(self, size: int) -> bool:
        """Return whether the body has at most `size` bytes by its Content-Length. Return False if it is compressed."""
        return self._announced is not None and self._announced <= size and self._decoder is None

    def require_json(self) -> None:
        """Raise UnsupportedMediaTypeError unless the Content-Type is JSON."""
        if self._content_type not in JSON_TYPES:
            raise UnsupportedMediaTypeError("The request must have the header Content-Type: application/json")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._budget.give_back(self._held)
        self._held = 0
        if self._spool is not None:
            self._spool.close()

    async def read(self) -> bytes:
        """Return the complete, decompressed body. Raises the errors of `spool`."""
        if self._spool is None:
            first = self._whole() or await self._receive_in_time(self._settings.body_idle_seconds)
            if self._decoder is None and not first.get("more_body", False):
                body: bytes = first.get("body", b"")
                self._check_size(len(body))
                self._budget.take(len(body))
                self._held += len(body)
                return body.removeprefix(BOM_UTF8)
            spool = await self._spooled(first)
        else:
            spool = self._spool
        return (await spool.read(max(spool.size, 1))).removeprefix(BOM_UTF8)

    async def spool(self) -> int:
        """Receive and decompress the complete body into the spool, and return its size. Then `read` or `parts` returns
        the body.

        Raises TooLargeError, OverloadedError if the memory budget of the worker is used up, BadRequestError if the body
        cannot be decompressed, RequestTimeoutError if it does not arrive in time, ClientDisconnect.
        """
        spool = await self._spooled(self._whole() or await self._receive_in_time(self._settings.body_idle_seconds))
        return spool.size

    async def parts(self, size: int, keyed: KeyedBody | None = None) -> AsyncIterator[bytes]:
        """Yield the spooled body in parts of about `size` bytes. Only one part is in memory at a time.

        `keyed` gets each part for the fingerprint of the idempotency key.
        """
        assert self._spool is not None  # noqa: S101 - it has arrived
        part = (await self._spool.read(max(size, len(BOM_UTF8)))).removeprefix(BOM_UTF8)
        while True:
            if keyed is not None:
                keyed.feed(part)
            yield part
            if self._spool.is_read:
                return
            part = await self._spool.read(size)

    async def _spooled(self, first: Message) -> BodySpool:
        settings = self._settings
        self._spool = BodySpool(self._budget, settings.body_memory_bytes, settings.body_file_dir)
        async for piece in self._pieces(first):
            await self._spool.write(piece)
        return self._spool

    async def _pieces(self, first: Message) -> AsyncIterator[bytes]:
        arrived = total = 0
        async for data in self._arriving(first):
            arrived += len(data)
            for piece in (data,) if self._decoder is None else self._decoder.feed(data):
                total += len(piece)
                self._check_size(total)
                check_ratio(arrived, total, self._settings.max_compression_ratio)
                yield piece
        if self._decoder is not None:
            self._decoder.finish()

    def _check_size(self, total: int) -> None:
        if total > self._max_bytes:
            raise TooLargeError(f"The body is over the limit of {self._max_bytes} bytes")

    async def _arriving(self, message: Message) -> AsyncIterator[bytes]:
        clock = asyncio.get_running_loop().time
        end = clock() + self._settings.body_timeout_seconds
        total = 0
        while True:
            data: bytes = message.get("body", b"")
            total += len(data)
            self._check_size(total)
            yield data
            if not message.get("more_body", False):
                return
            message = await self._receive_in_time(min(end - clock(), self._settings.body_idle_seconds))

    def _whole(self) -> Message | None:
        """Return the message of a body that has already arrived: it needs no timer."""
        exchange = find_exchange(self._receive)
        body = None if exchange is None else exchange.whole_body()
        return None if body is None else {"type": "http.request", "body": body}

    async def _receive_in_time(self, seconds: float) -> Message:
        """Receive the next message within `seconds`.

        This costs a third of asyncio.timeout, as `python -m benchmarks.hot_path` shows.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this is a coroutine
        timer = asyncio.get_running_loop().call_later(seconds, self._time_out, task)
        try:
            message = await self._receive()
        except asyncio.CancelledError:
            if self._timed_out and task.uncancel() == 0:
                raise RequestTimeoutError("The body did not arrive in time") from None
            raise
        finally:
            timer.cancel()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        return message

    def _time_out(self, task: "asyncio.Task[object]") -> None:
        self._timed_out = True
        task.cancel()


async def json_body(request: Request, services: Services, user_id: int) -> tuple[bytes, WriteKey | None]:
    """Return the complete JSON body, and its Idempotency-Key if the client sent one. Raises the errors of Body."""
    headers = dict(request.scope["headers"])
    with Body(headers, request.receive, services.settings, services.bodies) as body:
        body.require_json()
        text = await body.read()
    return text, key_of(headers.get(b"idempotency-key"), user_id, f"JSON {route_path(request.scope)}", text)
