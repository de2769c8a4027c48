"""A real server in its own process, which can be killed, and a proxy in front of it that behaves like a bad link."""

import asyncio
import os
import random
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests import forked
from tests.serving import free_port, responds


class Server:
    """A uvicorn worker on a database, always on the same port."""

    def __init__(self, database_url: str, output: Path, **settings: object) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._output = output
        self._environment = os.environ | {"FACTORY_LOGS_DATABASE_URL": database_url, "FACTORY_LOGS_ACCESS_LOG": "0"}
        self._environment |= {f"FACTORY_LOGS_{name.upper()}": str(value) for name, value in settings.items()}
        self._process: forked.Process | None = None

    def start(self) -> None:
        """Start it without waiting until it responds."""
        options = ["--port", str(self.port), "--log-level", "warning", "--timeout-graceful-shutdown", "10"]
        arguments = ["--factory", "factory_logs.app:create_app_from_environment", *options]
        with self._output.open("ab") as output:
            self._process = forked.start("uvicorn", arguments, self._environment, stdout=output, stderr=output)

    def wait(self) -> None:
        """Wait until it responds."""
        assert self._process is not None
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self.output
            if responds(self.port) is not None:
                return
            time.sleep(0.05)
        raise AssertionError(f"not serving after 300 s: {self.output}")

    @property
    def output(self) -> str:
        """Return its log output so far."""
        return self._output.read_text()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """Send SIGKILL, as the kernel's out-of-memory killer does."""
        self.stop(signal.SIGKILL)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Return its exit code, which is negative after a signal."""
        if self._process is None:
            return 0
        self._process.send_signal(number)
        code = self._process.wait(300)
        self._process = None
        return code


@dataclass
class Fate:
    """The fate of one connection: cut after this many bytes in each direction (None: never)."""

    request_bytes: int | None = None
    response_bytes: int | None = None


class BadLink:
    """A TCP proxy whose connections end early, at points from a seeded generator. `good` lets all pass."""

    def __init__(self, server_port: int, seed: int) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.good = False
        self.cuts = 0
        self._server_port = server_port
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bad-link")

    def __enter__(self) -> "BadLink":
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        listener = self._loop.run_until_complete(asyncio.start_server(self._connection, "127.0.0.1", self.port))
        self._started.set()
        self._loop.run_forever()
        listener.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    def _fate(self) -> Fate:
        if self.good:
            return Fate()
        dice = self._random.random()
        if dice < 0.2:
            return Fate(request_bytes=self._random.randrange(1500))
        if dice < 0.45:
            return Fate(response_bytes=self._random.choice((0, 0, self._random.randrange(600))))
        if dice < 0.75:
            return Fate(request_bytes=self._random.randrange(30_000), response_bytes=self._random.randrange(30_000))
        return Fate()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fate = self._fate()
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            writer.transport.abort()
            return
        directions = {
            asyncio.create_task(self._pump(reader, upstream_writer, fate.request_bytes)),
            asyncio.create_task(self._pump(upstream_reader, writer, fate.response_bytes)),
        }
        try:
            _, rest = await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            for task in rest:
                task.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
        finally:
            writer.transport.abort()
            upstream_writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int | None) -> None:
        while data := await reader.read(65536):
            if left is not None and len(data) >= left:
                writer.write(data[:left])
                self.cuts += 1
                await asyncio.sleep(0)
                return
            left = None if left is None else left - len(data)
            writer.write(data)
            await writer.drain()
