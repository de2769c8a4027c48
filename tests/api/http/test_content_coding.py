"""Pages, stats and streams are compressed if `Accept-Encoding` allows it."""

import gzip
import json

import httpx
import pytest
import zstandard

from factory_logs.api.http.content_coding import preferred
from factory_logs.permissions import Level
from factory_logs.settings import Settings
from tests.api.conftest import client_of, worker
from tests.factories import LOG


async def raw(client: httpx.AsyncClient, encoding: str | None, path: str = "", accept: str = "*/*") -> httpx.Response:
    """Return the response with its body still compressed."""
    url = f"/v1/factory_logs{path}"
    request = client.build_request("GET", url, headers={"Accept": accept})
    request.headers.pop("accept-encoding")
    if encoding is not None:
        request.headers["accept-encoding"] = encoding
    response = await client.send(request, stream=True)
    response._content = b"".join([part async for part in response.aiter_raw()])
    return response


def unpacked(response: httpx.Response) -> bytes:
    encoding = response.headers.get("content-encoding")
    if encoding == "zstd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(response.content)
    return gzip.decompress(response.content) if encoding == "gzip" else response.content


@pytest.fixture
async def filled(client: httpx.AsyncClient) -> httpx.AsyncClient:
    assert (await client.post("/v1/factory_logs", json=[LOG] * 600)).status_code == 201
    return client


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "accept"),
    [
        ("?results_per_page=100", "*/*"),
        ("?cursor=&results_per_page=100", "*/*"),
        ("/stats?by=factory_log_id", "*/*"),
        ("", "application/x-ndjson"),
        ("", "text/csv"),
    ],
)
async def test_every_large_response_is_compressed_if_the_client_accepts_it(
    filled: httpx.AsyncClient, path: str, accept: str
) -> None:
    plain = await raw(filled, None, path, accept)
    assert "content-encoding" not in plain.headers
    for encoding in ("gzip", "zstd"):
        response = await raw(filled, encoding, path, accept)
        assert response.headers["content-encoding"] == encoding
        assert response.headers["vary"] == plain.headers["vary"] == "Accept, Accept-Encoding"
        assert unpacked(response) == plain.content
        assert len(response.content) < len(plain.content) / 3


async def test_a_compressed_stream_can_be_read_while_it_arrives(filled: httpx.AsyncClient) -> None:
    """The client can decompress each part when it arrives; the compressor holds nothing back."""
    async with filled.stream("GET", "/v1/factory_logs", headers={"Accept": "application/x-ndjson"}) as response:
        text = "".join([part async for part in response.aiter_text()])
    assert [json.loads(line)["factory_log_id"] for line in text.splitlines()] == list(range(1, 601))


async def test_the_smallest_compressed_size_is_a_setting(
    migrated_url: str, tokens: dict[Level, str], settings: Settings
) -> None:
    size = len('{"num_results":0,"total_pages":0,"page":1,"objects":[]}')
    for limit, encoding in ((size, "gzip"), (size + 1, None)):
        async with (
            worker(migrated_url, compress_min_bytes=limit) as app,
            client_of(app, tokens[Level.OVERVIEW]) as client,
        ):
            assert (await raw(client, "gzip")).headers.get("content-encoding") == encoding
    assert settings.compress_min_bytes == 1024


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip", "gzip"),
        ("GZip;q=0.5, zstd;q=0.4", "gzip"),
        ("gzip;q=0", None),
        ("identity, gzip;q=0.5", "identity"),
        ("br", None),
        ("", None),
        (";;,=,gzip;q", None),
        ("gzip;q=x, zstd;q=nan", None),
    ],
)
def test_the_highest_weight_is_preferred(header: str, chosen: str | None) -> None:
    assert preferred(header, ["zstd", "gzip", "identity"]) == chosen
