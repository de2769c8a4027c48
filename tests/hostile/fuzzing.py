"""Random requests: well-formed requests of every endpoint, each with a few random changes."""

import json
from collections.abc import Callable, Sequence
from random import Random
from urllib.parse import quote

LOG = {
    "app_name": "tiger", "product_imei": "123456789012345", "repair_id": None, "timestamp": "2024-01-31 13:45:00.5",
    "tags": {"jig_id": "J-07", "a": [1, {"b": "ü\u20ac"}]}, "fields": {"passed": True, "voltage": 3.28, "n": 2**53},
}  # fmt: skip
REPAIR = {"product_imei": "123456789012345", "arrival_date": "2024-01-31", "process": "Replaced", "outcome": None}
LINES = 'tiger,jig_id=J-07 passed=true,voltage=3.28,text="a\\"b",n=5i 1706708700000000000\nlion f=1\n'
QUERIES = (
    {"filters": [{"name": "app_name", "op": "ilike", "val": "%t_g%"}], "order_by": [{"field": "timestamp"}]},
    {"filters": [{"or": [{"name": "tags__jig_id", "op": "==", "val": "J-07"},
                         {"not": {"name": "repair_id", "op": "is_null"}}]}]},
    {"filters": [{"name": "fields__voltage", "op": "in", "val": [3.28, 1, None]}], "group_by": [{"field": "app_name"}]},
    {"filters": [{"name": "repair", "op": "has", "val": {"name": "process", "op": "==", "val": "x"}}], "limit": 3},
    {"filters": [{"name": "timestamp", "op": ">=", "field": "created_at"}], "offset": 2, "single": True},
)  # fmt: skip
PIECES = (
    b"\0", b"\r\n", b"\r\n\r\n", b"\n", b" ", b"\t", b"%00", b"%", b"%ff", b"%C3%28", b"\xff", b"\xc0\xaf",
    b"\xed\xa0\x80", b"\xef\xbb\xbf", "é".encode(), b"\\u0000", b"\\ud800", b"\\", b'"', b"'", b"{", b"}", b"[",
    b"]", b",", b":", b"=", b"&", b"?", b"#", b"/", b"//", b"../", b";", b"null", b"true", b"NaN", b"Infinity",
    b"-0", b"-1", b"0", b"1e400", b"1e-400", b"9" * 19, b"9" * 400, b"9223372036854775808", b"2147483648",
    b"[" * 40, b'{"a":' * 40, b"a" * 300, b"__", b"fields__", b"tags__a__b", b"__class__", b"CURRENT_TIMESTAMP",
    b"0000-00-00", b"9999-12-31T23:59:59.999999999+23:59", b"24:00", b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b"Host: y\r\n",
    b"Expect: 100-continue\r\n", b"Content-Encoding: gzip\r\n", b"Content-Encoding: zstd\r\n",
    b"Accept: text/csv\r\n", b"Accept: application/x-ndjson\r\n", b"Accept-Encoding: gzip;q=0, zstd;q=2\r\n",
    b"If-None-Match: *\r\n", b"Idempotency-Key: k\r\n", b"Last-Event-ID: 1\r\n", b"X-Request-ID: x y\r\n",
    b"X-Forwarded-For: 1.2.3.4\r\n", b"Content-Type: application/x-ndjson\r\n", b"HTTP/1.0", b"HTTP/2.0",
    b"HEAD", b"OPTIONS", b"http://x",
)  # fmt: skip

Parts = tuple[bytes, bytes, bytes]
"""A request: its line, its headers, its body."""


def requests(token: str) -> list[Parts]:
    """Well-formed requests of every endpoint."""

    def request(method: str, target: str, body: str = "", content_type: str = "application/json") -> Parts:
        headers = f"Host: x\r\nAuthorization: Token token={token}\r\n"
        if body:
            headers += f"Content-Type: {content_type}\r\n"
        return f"{method} {target} HTTP/1.1".encode(), headers.encode(), body.encode()

    log, ndjson = json.dumps(LOG), "application/x-ndjson"
    found = [
        request("POST", "/v1/factory_logs", log),
        request("POST", "/v1/factory_logs", f"[{log}, {log}]"),
        request("POST", "/v1/factory_logs?on_error=skip", f"[{log}, {{}}, 1]"),
        request("POST", "/v1/factory_logs", f"{log}\n{log}\n", ndjson),
        request("POST", "/v1/factory_logs?on_error=skip", f"{log}\nx\n", ndjson),
        request("POST", "/v1/repairs", json.dumps(REPAIR)),
        request("POST", "/write?db=x&precision=ms&rp=y", LINES, "text/plain"),
        request("POST", "/api/v2/write?bucket=x&org=o&precision=s", LINES, "text/plain"),
        request("POST", "/v1/auth/login", '{"username": "mallory", "password": "x"}'),
        request("POST", "/v1/auth/login", "username=mallory&password=x", "application/x-www-form-urlencoded"),
        request("GET", "/v1/auth/validate_user?username=mallory"),
        request("GET", "/v1/factory_logs/1"),
        request("GET", "/v1/repairs/1"),
        request("GET", "/v1/factory_logs?page=2&results_per_page=5"),
        request("GET", "/v1/factory_logs?cursor=&results_per_page=2"),
        request("GET", "/v1/factory_logs/tail?last_event_id=1"),
        request("GET", "/v1/factory_logs/stats?bucket=1h&by=app_name&by=tags__jig_id&field=fields__voltage"),
        request("GET", "/query?q=SHOW%20DATABASES&db=x"),
        request("PUT", "/v1/factory_logs/1", log),
        *(request("GET", f"/{path}") for path in ("ping", "health", "healthz", "readyz", "metrics", "docs")),
        request("GET", "/openapi.json"),
    ]  # fmt: skip
    for query in QUERIES:
        text = quote(json.dumps(query))
        found += [request("GET", f"{path}?q={text}") for path in ("/v1/factory_logs", "/v1/repairs")]
        found += [request("GET", f"/v1/factory_logs/{path}?q={text}") for path in ("stats", "tail")]
    return found


def _insert(random: Random, data: bytes, pieces: Sequence[bytes]) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.choice(pieces) + data[at:]


def _replace(random: Random, data: bytes, pieces: Sequence[bytes]) -> bytes:
    start = random.randrange(len(data) + 1)
    return data[:start] + random.choice(pieces) + data[start + random.randrange(1, 12) :]


def _delete(random: Random, data: bytes, pieces: Sequence[bytes]) -> bytes:
    start = random.randrange(len(data) + 1)
    return data[:start] + data[start + random.randrange(1, 20) :]


def _repeat(random: Random, data: bytes, pieces: Sequence[bytes]) -> bytes:
    start = random.randrange(len(data) + 1)
    end = start + random.randrange(1, 60)
    return data[:end] + data[start:end] * random.randrange(1, 4) + data[end:]


def _byte(random: Random, data: bytes, pieces: Sequence[bytes]) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.randbytes(1) + data[at + 1 :]


CHANGES: tuple[Callable[[Random, bytes, Sequence[bytes]], bytes], ...] = (_insert, _replace, _delete, _repeat, _byte)


def mutated(random: Random, seeds: Sequence[Parts]) -> bytes:
    """Return a request of the seeds with one to three changes.

    The Content-Length is mostly right, so that the request reaches the routes.
    """
    line, headers, body = parts = list(random.choice(seeds))
    if random.random() < 0.1:
        body = parts[2] = random.choice(seeds)[2]
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        weights = (4, 1, 8 if body else 0)
        (which,) = random.choices(range(3), weights)
        parts[which] = random.choice(CHANGES)(random, parts[which], PIECES)
    line, headers, body = parts
    if body:
        off = random.choice((-1, 1, 7)) if random.random() < 0.05 else 0
        headers += b"Content-Length: %d\r\n" % max(0, len(body) + off)
    return line + b"\r\n" + headers + b"\r\n" + body
