"""TLS to PostgreSQL, as the parameters of the URL require.

The embedded binaries are built without OpenSSL. So a proxy in front of the real server speaks PostgreSQL's TLS
handshake, with a self-signed certificate. `other.crt` is another certificate for the same names.
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
from factory_logs.embedded.server import DATABASE, SOCKET_FILE
from factory_logs.errors import DatabaseConnectError
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
    """Yield the port of a proxy in front of the server; without `tls` the proxy refuses TLS."""
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

    server = await asyncio.start_server(connection, "0.0.0.0", 0)
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


async def test_verify_full_accepts_the_configured_certificate(postgres_url: str) -> None:
    async with front(postgres_url, tls=True) as port:
        await ping(port, sslmode="verify-full", sslrootcert=str(TLS / "server.crt"))


async def test_verify_full_refuses_another_certificate(postgres_url: str) -> None:
    async with front(postgres_url, tls=True) as port:
        with pytest.raises(DatabaseConnectError) as error:
            await ping(port, sslmode="verify-full", sslrootcert=str(TLS / "other.crt"))
    assert "certificate verify failed" in error.value.reason


async def test_verify_full_refuses_another_host(postgres_url: str) -> None:
    async with front(postgres_url, tls=True) as port:
        with pytest.raises(DatabaseConnectError) as error:
            await ping(port, "127.0.0.2", sslmode="verify-full", sslrootcert=str(TLS / "server.crt"))
    assert "CERTIFICATE_VERIFY_FAILED" in error.value.reason
    assert "127.0.0.2" in error.value.reason.partition("CERTIFICATE_VERIFY_FAILED")[2]


@pytest.mark.parametrize("mode", ["require", "verify-full"])
async def test_a_server_without_tls_is_refused_if_tls_is_required(postgres_url: str, mode: str) -> None:
    root = {"sslrootcert": str(TLS / "server.crt")} if mode == "verify-full" else {}
    async with front(postgres_url, tls=False) as port:
        with pytest.raises(DatabaseConnectError) as error:
            await ping(port, sslmode=mode, **root)
    assert "rejected SSL upgrade" in error.value.reason
