"""Files, users and tokens for the tests of commands."""

import hashlib
import json
from pathlib import Path

from tests.cli.conftest import Query, Run

DATA = Path(__file__).parent / "data"
LOG = {"app_name": "tiger", "timestamp": "2024-01-31T13:45:00.123Z", "tags": {"jig_id": "J-07"}, "fields": {"v": 3.28}}


def lines(*records: object) -> str:
    return "".join(f"{record if isinstance(record, str) else json.dumps(record)}\n" for record in records)


def make_user(run: Run, name: str = "jig-07") -> None:
    assert run("users", "create", name, "--permission", "SYSTEM", stdin="open secret\n").exit_code == 0


def stored(query: Query, token: str) -> dict[str, object]:
    digest = hashlib.sha256(token.encode()).hexdigest()
    (row,) = query(f"select *, expires_at - created_at as life from tokens where token_hash = '\\x{digest}'")
    return row
