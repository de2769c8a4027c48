"""The client for asyncio. It uses the spool and the sender thread of `Client`, and does disk work in another thread.

So the code that must never lose a log exists only once.
"""

import asyncio
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

import httpx

from factory_logs.client.client import DEFAULTS, Client, Status
from factory_logs.client.errors import ClosedError
from factory_logs.client.settings import ClientSettings

P = ParamSpec("P")
T = TypeVar("T")


class AsyncClient:
    """Sends logs like Client, with coroutines. Only creating it blocks the event loop, because that opens the spool.

    A cancelled `send` may have stored its log.
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
        self._client = Client(
            url,
            token,
            spool=spool,
            token_file=token_file,
            username=username,
            password=password,
            settings=settings,
            transport=transport,
        )
        # A single thread preserves the order of logs. `flush` waits in another thread, so that it does not block
        # `send`.
        self._disk = ThreadPoolExecutor(1, "factory-logs-spool")
        self._pid = os.getpid()
        self._closed = False

    async def send(
        self,
        app_name: str,
        *,
        product_imei: str | None = None,
        repair_id: int | None = None,
        timestamp: datetime | str | int | None = None,
        tags: object = None,
        fields: object = None,
    ) -> None:
        """Store one log for delivery; see Client.send."""
        await self._on_disk(
            self._client.send,
            app_name,
            product_imei=product_imei,
            repair_id=repair_id,
            timestamp=self._client.now() if timestamp is None else timestamp,
            tags=tags,
            fields=fields,
        )

    async def send_many(self, records: Iterable[Mapping[str, object]]) -> int:
        """Store many logs, all or none; see Client.send_many."""
        return await self._on_disk(self._client.send_many, list(records))

    async def flush(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - the same names as Client's
        """Wait until no log in the spool waits for the server; see Client.flush."""
        return await asyncio.to_thread(self._client.flush, timeout)

    async def status(self) -> Status:
        """Return the spool's counts and the reason why no log is delivered; see Client.status."""
        return await self._on_disk(self._client.status)

    async def close(self) -> None:
        """Stop sending; see Client.close."""
        self._closed = True
        await asyncio.to_thread(self._client.close)
        self._disk.shutdown(wait=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _on_disk(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._closed:
            raise ClosedError("the client is closed")
        if self._pid != os.getpid():  # a forked child does not have the thread
            self._disk = ThreadPoolExecutor(1, "factory-logs-spool")
            self._pid = os.getpid()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._disk, functools.partial(work, *args, **kwargs))
