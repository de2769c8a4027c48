"""The body of a write: its type and encoding checked, decompressed, and bounded on both sides (SPEC 7)."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Self

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from factory_logs.api.services import Services
from factory_logs.errors import RequestTimeoutError, TooLargeError, UnsupportedMediaTypeError
from factory_logs.ingest.body_budget import BodyBudget
from factory_logs.ingest.decoding import Decoder, decoder
from factory_logs.ingest.idempotency import KeyedBody, WriteKey
from factory_logs.settings import Settings

JSON_TYPES = (b"application/json", b"application/vnd.api+json")
NDJSON_TYPES = (b"application/x-ndjson", b"application/ndjson")


class Body:
    """One request's body. A context: what it holds of the budget is given back at the end."""

    def __init__(
        self,
        headers: Mapping[bytes, bytes],
        receive: Receive,
        settings: Settings,
        budget: BodyBudget,
        max_bytes: int | None = None,
    ) -> None:
        """`max_bytes` is of a call whose bodies are smaller than others.

        Raises TooLargeError for an announced length over the limit, UnsupportedMediaTypeError for its encoding.
        """
        self._receive = receive
        self._settings = settings
        self._budget = budget
        self._max_bytes = max_bytes or settings.max_body_bytes
        self._held = 0
        self._gave_up = False
        self._content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        encoding = headers.get(b"content-encoding")
        self._decoder: Decoder | None = None if encoding is None else decoder(encoding.decode("latin-1"))
        announced = headers.get(b"content-length", b"")
        self._announced = int(announced) if announced.isdigit() else None
        if self._announced is not None and self._announced > self._max_bytes:
            raise self._too_large()

    @property
    def is_ndjson(self) -> bool:
        return self._content_type in NDJSON_TYPES

    def is_announced_within(self, size: int) -> bool:
        """Whether the body will be at most `size` bytes, as nothing has to be decompressed."""
        return self._announced is not None and self._announced <= size and self._decoder is None

    def require_json(self) -> None:
        """Raises UnsupportedMediaTypeError unless the body claims to be JSON."""
        if self._content_type not in JSON_TYPES:
            raise UnsupportedMediaTypeError("The request must have the header Content-Type: application/json")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Give back what is held; a long body that is handled in parts does so after each."""
        self._budget.give_back(self._held)
        self._held = 0

    async def whole(self) -> bytes:
        """The body, decompressed. Raises as `pieces` does."""
        if self._decoder is not None:
            return b"".join([piece async for piece in self.pieces()])
        first = await self._receive_in_time(self._settings.body_idle_seconds)
        if not first.get("more_body", False):
            body: bytes = first.get("body", b"")
            self._hold(body, len(body))
            return body
        return b"".join([piece async for piece in self._pieces(first)])

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body, decompressed, as it arrives.

        Raises TooLargeError, OverloadedError where the worker holds too much, BadRequestError for a body that is
        broken, RequestTimeoutError for one that stops arriving, ClientDisconnect.
        """
        first = await self._receive_in_time(self._settings.body_idle_seconds)
        async for piece in self._pieces(first):
            yield piece

    async def _pieces(self, first: Message) -> AsyncIterator[bytes]:
        total = 0
        async for data in self._arriving(first):
            for piece in (data,) if self._decoder is None else self._decoder.feed(data):
                total += len(piece)
                self._hold(piece, total)
                yield piece
        if self._decoder is not None:
            self._decoder.finish()

    def _hold(self, piece: bytes, total: int) -> None:
        if total > self._max_bytes:
            raise self._too_large()
        self._budget.take(len(piece))
        self._held += len(piece)

    async def _arriving(self, message: Message) -> AsyncIterator[bytes]:
        clock = asyncio.get_running_loop().time
        end = clock() + self._settings.body_timeout_seconds
        total = 0
        while True:
            data: bytes = message.get("body", b"")
            total += len(data)
            if total > self._max_bytes:
                raise self._too_large()
            yield data
            if not message.get("more_body", False):
                return
            message = await self._receive_in_time(min(end - clock(), self._settings.body_idle_seconds))

    async def _receive_in_time(self, seconds: float) -> Message:
        """What asyncio.timeout does, at a third of its cost: it stands before every body."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - this is a coroutine
        timer = asyncio.get_running_loop().call_later(seconds, self._give_up, task)
        try:
            message = await self._receive()
        except asyncio.CancelledError:
            if self._gave_up and task.uncancel() == 0:
                raise RequestTimeoutError("The body did not arrive in time") from None
            raise
        finally:
            timer.cancel()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        return message

    def _give_up(self, task: "asyncio.Task[object]") -> None:
        self._gave_up = True
        task.cancel()

    def _too_large(self) -> TooLargeError:
        return TooLargeError(f"The body is over the limit of {self._max_bytes} bytes")


async def json_body(request: Request, services: "Services", user_id: int) -> tuple[bytes, WriteKey | None]:
    """A whole JSON body, and its Idempotency-Key where the caller sent one. Raises as Body does."""
    headers = dict(request.scope["headers"])
    with Body(headers, request.receive, services.settings, services.bodies) as body:
        body.require_json()
        text = await body.whole()
    header = headers.get(b"idempotency-key")
    if header is None:
        return text, None
    keyed = KeyedBody(user_id, header, f"JSON {request.scope['path']}")
    keyed.feed(text)
    return text, keyed.key()
