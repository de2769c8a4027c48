"""TLS to PostgreSQL, as the URL asks for it.

The embedded binaries are built without OpenSSL, so a proxy speaks PostgreSQL's TLS handshake in front of the real
server, with a certificate that is signed by itself; `other.crt` is one more of the same names.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import text

from factory_logs.db.engine import Database
from factory_logs.embedded import DATABASE, SOCKET_FILE
from factory_logs.errors import DatabaseUnavailableError
from factory_logs.settings import Settings

TLS = Path(__file__).parent / "tls"
SSL_REQUEST = bytes.fromhex("0000000804d2162f")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except (OSError, ssl.SSLError):
        pass
    finally:
        writer.close()


@asynccontextmanager
async def front(postgres_url: str, *, tls: bool) -> AsyncIterator[int]:
    """The port of a proxy before the server; without `tls` it says that it has none."""
    socket_path = f"{parse_qs(urlsplit(postgres_url).query)['host'][0]}/{SOCKET_FILE}"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "server.crt", TLS / "server.key")

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begin = await reader.readexactly(8)
        server_reader, server_writer = await asyncio.open_unix_connection(socket_path)
        try:
            if begin != SSL_REQUEST:
                server_writer.write(begin)
            elif tls:
                writer.write(b"S")
                await writer.start_tls(context)
            else:
                writer.write(b"N")
            await asyncio.gather(_pump(reader, server_writer), _pump(server_reader, writer))
        except (OSError, ssl.SSLError):
            pass
        finally:
            writer.close()
            server_writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def ping(port: int, host: str = "localhost", **options: str) -> None:
    query = "&".join(f"{name}={value}" for name, value in options.items())
    database = Database(f"postgresql://{DATABASE}@{host}:{port}/{DATABASE}?{query}", Settings())
    try:
        async with database.connect() as connection:
            await connection.execute(text("select 1"))
        raw = await database.connect_raw()
        await raw.close()
    finally:
        await database.dispose()


async def test_verify_full_takes_the_certificate_that_it_was_given(postgres_url: str) -> None:
    async with front(postgres_url, tls=True) as port:
        await ping(port, sslmode="verify-full", sslrootcert=str(TLS / "server.crt"))


async def test_verify_full_takes_no_other_certificate(postgres_url: str) -> None:
    async with front(postgres_url, tls=True) as port:
        with pytest.raises(DatabaseUnavailableError):
            await ping(port, sslmode="verify-full", sslrootcert=str(TLS / "other.crt"))


async def test_verify_full_takes_no_other_host(postgres_url: str) -> None:
    async with front(postgres_url, tls=True) as port:
        with pytest.raises(DatabaseUnavailableError):
            await ping(port, "127.0.0.2", sslmode="verify-full", sslrootcert=str(TLS / "server.crt"))


@pytest.mark.parametrize("mode", ["require", "verify-full"])
async def test_a_server_without_tls_is_refused_where_tls_is_asked_for(postgres_url: str, mode: str) -> None:
    root = {"sslrootcert": str(TLS / "server.crt")} if mode == "verify-full" else {}
    async with front(postgres_url, tls=False) as port:
        with pytest.raises(DatabaseUnavailableError):
            await ping(port, sslmode=mode, **root)
