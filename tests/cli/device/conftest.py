"""Set the environment of a jig, from which the device commands read their options."""

from pathlib import Path

import pytest

from tests.client.servers import Server

NOWHERE = {"FACTORY_LOGS_URL": "http://127.0.0.1:9", "FACTORY_LOGS_TOKEN": "t"}


@pytest.fixture(autouse=True)
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set the environment of a jig without a reachable server."""
    for name, value in {**NOWHERE, "FACTORY_LOGS_SPOOL": str(tmp_path / "spool")}.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "spool"


@pytest.fixture
def online(shared_server: Server, token: str, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Set the environment of a jig with a real server."""
    monkeypatch.setenv("FACTORY_LOGS_URL", shared_server.url)
    monkeypatch.setenv("FACTORY_LOGS_TOKEN", token)
    return shared_server
