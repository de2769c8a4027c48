"""Logs on a server, for tests of the reader and of the commands that read."""

from typing import Any

import httpx

from tests.client.servers import Server

IMEIS = ("352099001761481", "352099001761499", "352099001761507")


def store(server: Server, token: str, logs: list[dict[str, Any]]) -> list[int]:
    """Store logs and return their ids."""
    ids: list[int] = []
    headers = {"Authorization": f"Token {token}"}
    for start in range(0, len(logs), 200):
        batch = logs[start : start + 200]
        stored = httpx.post(f"{server.url}/v1/factory_logs", json=batch, headers=headers, timeout=60)
        assert stored.status_code == 201, stored.text
        ids += stored.json()["ids"]
    return ids


def numbered(count: int) -> list[dict[str, Any]]:
    """Return logs with `fields.n` from 0 on, in descending order of time."""
    return [
        {
            "app_name": "jig",
            "product_imei": IMEIS[n % 3],
            "timestamp": f"2024-01-31 {23 - n // 3600:02}:{59 - n // 60 % 60:02}:{59 - n % 60:02}",
            "fields": {"n": n, "text": "\u2028line" * 20},
        }
        for n in range(count)
    ]


def attempts() -> list[dict[str, Any]]:
    """Return attempts of three units at one step: one passes, one fails and passes a day later, and one fails."""

    def attempt(imei: str, timestamp: str, jig: str, passed: bool, volt: float) -> dict[str, Any]:
        fields = {"passed": passed, "volt": {"value": volt, "pass": volt >= 3}}
        return {
            "app_name": "tiger", "product_imei": imei, "timestamp": timestamp, "tags": {"jig": jig}, "fields": fields
        }  # fmt: skip

    first, second, third = IMEIS
    return [
        attempt(first, "2024-01-30 10:00:00", "J-1", True, 3.3),
        attempt(second, "2024-01-30 11:00:00", "J-2", False, 2.9),
        attempt(second, "2024-01-31 09:00:00", "J-1", True, 3.2),
        attempt(third, "2024-01-31 18:30:00", "J-2", False, 3.1),
    ]
