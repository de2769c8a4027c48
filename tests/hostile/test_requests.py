"""Expensive or destructive requests: each gets a response, and none is a 500 (docs/reference/http-api.md#errors)."""

import gzip
import json
from collections.abc import Callable
from urllib.parse import quote

import pytest
import zstandard

from tests.faults import processes
from tests.hostile.conftest import MIB, Target

JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}
LOG = '{"app_name": "x", "timestamp": "2024-01-31", "fields": %s}'
DEEP = 100_000
LIMIT_SECONDS = 30


def nested(opening: str, closing: str, inside: str = "1", depth: int = DEEP) -> str:
    return opening * depth + inside + closing * depth


BODIES = {
    "deep arrays": (LOG % nested("[", "]"), 400),
    "deep objects": (LOG % nested('{"a":', "}"), 400),
    "deep, never closed": ("[" * 1_000_000, 400),
    "deep at the top": (nested("[", "]"), 400),
    "a huge exponent": (LOG % '{"a": 1e400}', 400),
    "a million digits": (LOG % f'{{"a": {"9" * 200_000}}}', 400),
    "a tiny exponent": (LOG % f'{{"a": 1e-{"9" * 1000}}}', None),
    "an exponent of many digits": (LOG % f'{{"a": 1e{"9" * 100_000}}}', 400),
    "not a number": (LOG % '{"a": NaN}', 400),
    "NUL": (LOG % r'{"a": "\u0000"}', 400),
    "NUL in a key": (LOG % r'{"\u0000": 1}', 400),
    "a lone surrogate": (LOG % r'{"a": "\ud800"}', 400),
    "a lone surrogate in a key": (LOG % r'{"\udc00": 1}', 400),
    "invalid UTF-8": (b'{"app_name": "\xff\xfe", "timestamp": "2024-01-31"}', 400),
    "overlong UTF-8": (b'{"app_name": "\xc0\xaf", "timestamp": "2024-01-31"}', 400),
    "a key twice": ('{"app_name": "a", "app_name": "b", "timestamp": "2024-01-31"}', None),
    "a key a hundred thousand times": (LOG % ("{" + ",".join(['"a": 1'] * 100_000) + "}"), None),
    "a hundred thousand keys": (LOG % json.dumps({str(n): n for n in range(100_000)}), 400),
    "prototypes": (LOG % '{"__proto__": {"a": 1}, "constructor": {"prototype": 1}}', 201),
    "a repair beyond any": ('{"app_name": "x", "timestamp": "2024-01-31", "repair_id": 1' + "0" * 400 + "}", 400),
    "a year beyond any": ('{"app_name": "x", "timestamp": 9' + "0" * 30 + "}", 400),
    "a text for a year": ('{"app_name": "x", "timestamp": "' + "9" * 100_000 + '"}', 400),
    "two hundred thousand empty records": ("[" + ",".join(["{}"] * 200_000) + "]", 400),
    "two hundred thousand nulls": ("[" + ",".join(["null"] * 200_000) + "]", 400),
    "nothing": ("", 400),
    "white space": (" " * MIB, 400),
}


@pytest.mark.parametrize("name", BODIES)
def test_every_body_gets_a_response(target: Target, name: str) -> None:
    body, status = BODIES[name]
    with target.client() as client:
        for path, headers in (("/v1/factory_logs", JSON), ("/v1/factory_logs", NDJSON), ("/v1/repairs", JSON)):
            response = client.post(path, content=body, headers=headers)
            assert response.status_code in (201, 400, 413), response.text[:300]
            assert response.headers["content-type"] == "application/json"
            if headers is JSON and path == "/v1/factory_logs" and status is not None:
                assert response.status_code == status, response.text[:300]
        response = client.post("/v1/auth/login", content=body, headers=JSON)
        assert response.status_code in (400, 401, 413), response.text[:300]


@pytest.mark.parametrize("headers", [JSON, NDJSON], ids=["JSON", "NDJSON"])
@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_compression_bomb_gets_a_413_before_it_is_decompressed(
    target: Target, headers: dict[str, str], encoding: str
) -> None:
    """A few hundred KiB that decompress to half a GiB."""
    line = b"[" + b" " * (MIB - 2) + b"\n"
    packer = zstandard.ZstdCompressor(level=1).compressobj() if encoding == "zstd" else None
    plain = line * 512
    bomb = packer.compress(plain) + packer.flush() if packer is not None else gzip.compress(plain, 1)
    with target.client() as client:
        response = client.post("/v1/factory_logs", content=bomb, headers=headers | {"Content-Encoding": encoding})
    assert response.status_code == 413, response.text[:300]


DEAR: dict[str, Callable[[], bytes]] = {
    "four million lines": lambda: b"1\n" * 4_000_000,
    "four million lines, packed": lambda: gzip.compress(b"1\n" * 4_000_000, 9),
    "blank lines": lambda: b"\n" * (15 * MIB),
    "empty members": lambda: gzip.compress(b"", mtime=0) * 400_000,
    "a record with a million unknown fields": lambda: b"{" + b",".join(b'"%d":1' % n for n in range(1_000_000)) + b"}",
    "a path of a million characters, a thousand times": lambda: (
        b'{"app_name": "a", "timestamp": 1, "tags": {"%b": [%b]}}' % (b"x" * MIB, b",".join([b'"\\u0000"'] * 1000))
    ),
}
"""Bodies that are created only by the tests that send them, because every test process imports this module."""


@pytest.mark.parametrize("name", DEAR)
@pytest.mark.parametrize("path", ["/v1/factory_logs", "/v1/factory_logs?on_error=skip", "/write?db=x"])
def test_a_body_that_would_take_minutes_of_cpu_is_refused(target: Target, name: str, path: str) -> None:
    body = DEAR[name]()
    packing = {"Content-Encoding": "gzip"} if body[:2] == b"\x1f\x8b" else {}
    before = processes.cpu_seconds(target.pid)
    with target.client() as client:
        for headers in (JSON, NDJSON) if path.startswith("/v1") else ({},):
            response = client.post(path, content=body, headers=headers | packing)
            assert response.status_code in (201, 400, 413), response.text[:300]
            assert len(response.content) < MIB
    assert processes.cpu_seconds(target.pid) - before < 20


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b"\x1f\x8b"), ("gzip", b"nonsense"), ("zstd", b"\x28\xb5\x2f\xfd"), ("zstd", b"nonsense"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0)), ("br", b"x"), ("\xff", b"x"),
    ],
)  # fmt: skip
def test_a_broken_or_unknown_encoding_is_a_client_error(target: Target, encoding: str, body: bytes) -> None:
    headers = [(b"Content-Type", b"application/json"), (b"Content-Encoding", encoding.encode("latin-1"))]
    with target.client() as client:
        assert client.post("/v1/factory_logs", content=body, headers=headers).status_code in (400, 415)


def compare(name: object, op: object = "==", val: object = 1) -> dict[str, object]:
    return {"filters": [{"name": name, "op": op, "val": val}]}


def deep(kind: str, depth: int) -> str:
    return '{"filters": [' + f'{{"{kind}": [' * depth + "]}" * depth + "]}"


FILTER = {"name": "app_name", "op": "==", "val": "x"}
QUERIES = {
    "deep or": (deep("or", 1000), 400),
    "deep not": ('{"filters": [' + '{"not": ' * 1000 + json.dumps(FILTER) + "}" * 1000 + "]}", 400),
    "deep JSON": (nested("[", "]", depth=5000), 400),
    "many filters": ({"filters": [FILTER] * 501}, 400),
    "a long list": (compare("app_name", "in", ["x"] * 1001), 400),
    "SQL for a name": (compare("app_name; DROP TABLE factory_logs; --"), 400),
    "SQL for a path": (compare("fields__a'b\"c); DROP TABLE factory_logs; --"), 200),
    "SQL for a value": (compare("app_name", "==", "'; DROP TABLE factory_logs; --"), 200),
    "a prototype": (compare("__proto__"), 400),
    "a class": (compare("__class__"), 400),
    "a prototype in a path": (compare("fields____proto__"), None),
    "a class in a path": (compare("tags____class____init__"), None),
    "a method of the column": (compare("metadata"), 400),
    "an empty path": (compare("fields__"), None),
    "a path of a thousand": (compare("fields" + "__a" * 1000), None),
    "NUL in a path": (compare("fields__a\0b"), None),
    "NUL in a value": (compare("app_name", "==", "\0"), None),
    "a lone surrogate": (r'{"filters": [{"name": "app_name", "op": "==", "val": "\ud800"}]}', None),
    "an id out of range": (compare("factory_log_id", "==", 10**400), None),
    "a huge float": ('{"filters": [{"name": "factory_log_id", "op": ">", "val": 1e400}]}', None),
    "a slow pattern": (compare("app_name", "like", "%a" * 1000 + "%"), 200),
    "an unfinished escape": (compare("app_name", "like", "a\\"), None),
    "a pattern on the whole": (compare("fields__a", "ilike", "_%" * 1000), 200),
    "an operator of its own": (compare("app_name", "; DROP TABLE users"), 400),
    "a name that is no text": (compare({"a": 1}), 400),
    "a value that is an object": (compare("app_name", "==", {"$gt": ""}), None),
    "a huge limit": ({"limit": 10**400}, None),
    "a huge offset": ({"offset": 10**30}, None),
    "an order by SQL": ({"order_by": [{"field": "1; DROP TABLE users"}]}, 400),
    "a direction of SQL": ({"order_by": [{"field": "app_name", "direction": "asc; DROP TABLE users"}]}, 400),
    "many orders": ({"order_by": [{"field": f"fields__{n}"} for n in range(1000)]}, None),
    "many groups": ({"group_by": [{"field": f"fields__{n}"} for n in range(1000)]}, None),
    "not an object": ("[]", 400),
    "nothing": ("", None),
}  # fmt: skip


@pytest.mark.parametrize("name", QUERIES)
def test_every_query_gets_a_response(target: Target, name: str) -> None:
    query, status = QUERIES[name]
    text = query if isinstance(query, str) else json.dumps(query)
    with target.client() as client:
        client.post("/v1/factory_logs", json=[{"app_name": "a" * 255, "timestamp": "2024-01-31"}] * 20)
        for path in ("/v1/factory_logs", "/v1/repairs"):
            response = client.get(f"{path}?q={quote(text)}")
            assert response.status_code in (200, 400), response.text[:300]
            assert response.headers["content-type"] == "application/json"
            if status is not None and path == "/v1/factory_logs":
                assert response.status_code == status, response.text[:300]
        assert client.get("/v1/factory_logs").json()["num_results"] == 20


def test_an_in_of_a_million_does_not_fit_in_a_head(target: Target) -> None:
    query = quote(json.dumps(compare("factory_log_id", "in", list(range(1_000_000)))))
    with target.connect() as connection:
        try:
            connection.sendall(f"GET /v1/factory_logs?q={query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            response = connection.recv(65536)
        except ConnectionError:
            return
    assert response.startswith(b"HTTP/1.1 400 ") or not response


@pytest.mark.parametrize(
    "asked",
    [
        "0", "-1", str(2**31), str(2**63 - 1), str(2**63), str(10**400), "1e3", "0x1", "1.0", "+1", "%00",
        "..%2f..%2fetc", "%ff", "__proto__", "١", "1%0d%0aX:%20y", "%2e%2e", "%20", "NaN", "null",
    ],
)  # fmt: skip
def test_an_invalid_id_gets_a_404(target: Target, asked: str) -> None:
    with target.client() as client:
        for collection in ("factory_logs", "repairs"):
            response = client.get(f"/v1/{collection}/{asked}")
            assert response.status_code == 404, response.text[:300]
            assert response.json()["message"]


@pytest.mark.parametrize(
    "parameters",
    ["page=0", "page=-1", f"page={10**400}", "page=%00", f"page={2**63}", f"results_per_page={10**400}",
     "results_per_page=-1", "page=1&page=2", "q=%ff", "q=%00", "&" * 10_000, "a=b&" * 10_000],
)  # fmt: skip
def test_every_parameter_gets_a_response(target: Target, parameters: str) -> None:
    with target.client() as client:
        response = client.get(f"/v1/factory_logs?{parameters}")
        assert response.status_code in (200, 400), response.text[:300]


def test_a_forged_address_does_not_escape_the_login_throttle(target: Target) -> None:
    """No proxy is trusted by default, not even one on the same machine."""
    with target.client() as client:
        credentials = {"username": "mallory", "password": "guess"}
        statuses = [
            client.post(
                "/v1/auth/login", json=credentials, headers={"X-Forwarded-For": f"192.0.2.{number}"}
            ).status_code
            for number in range(14)
        ]
    assert statuses == [401] * 10 + [429] * 4
    audit = [line for line in target.output.read_text().splitlines() if '"audit"' in line and "mallory" in line]
    assert {json.loads(line)["address"] for line in audit} == {"127.0.0.1"}
