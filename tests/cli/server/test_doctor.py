"""`doctor` finds problems that would stop the service, and says how to fix them."""

import http.server
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from factory_logs.cli import app
from factory_logs.cli.server.doctor import CLOCK_SECONDS, State, _clock_check, _node_check
from factory_logs.db.citus import NodeState
from factory_logs.embedded import running
from tests.cli.conftest import Query, Run
from tests.cli.factories import make_user
from tests.conftest import with_parameters
from tests.serving import free_port, serving

Rows = dict[str, dict[str, Any]]
Doctor = Callable[..., tuple[int, Rows]]


@pytest.fixture(autouse=True)
def durable_server(query: Query) -> Iterator[None]:
    """Let the server of the tests flush its writes, which it otherwise does not do: `doctor` would report that."""
    _set_durable(query, "on")
    yield
    _set_durable(query, "off")


def _set_durable(query: Query, value: str) -> None:
    for name in ("fsync", "full_page_writes"):
        query(f"alter system set {name} = {value}")
    query("select pg_reload_conf()")
    for name in ("fsync", "full_page_writes"):
        while query(f"show {name}") != [{name: value}]:  # the server reads its settings a moment later
            pass


@pytest.fixture
def doctor(run: Run) -> Doctor:
    """Run `factory-logs doctor --json` on the test database; return the exit code and the rows by check."""

    def check(*arguments: str) -> tuple[int, Rows]:
        ran = run("doctor", "--json", *arguments)
        return ran.exit_code, {row["subject"]: row for row in json.loads(ran.stdout)}

    return check


def test_a_good_configuration_has_no_findings(run: Run, doctor: Doctor) -> None:
    make_user(run)
    code, rows = doctor()
    assert code == 0
    assert {row["state"] for row in rows.values()} == {"ok"}, rows
    assert {
        "program",
        "settings",
        "machine",
        "database",
        "database settings",
        "clock",
        "tables",
        "users",
    } <= rows.keys()
    table = run("doctor")
    assert table.exit_code == 0
    assert [line.split("│")[1].strip() for line in table.stdout.splitlines() if "│" in line] == list(rows)


def test_a_warning_has_exit_code_0(doctor: Doctor) -> None:
    code, rows = doctor()
    assert (code, rows["users"]["state"]) == (0, "warning")
    assert "users create" in rows["users"]["advice"]


def test_a_database_that_cannot_be_reached_is_an_error_without_the_password(
    run: Run, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORY_LOGS_DATABASE_URL", "postgresql://ann:secret@127.0.0.1:1/logs")
    code, rows = doctor()
    assert code == 1
    assert rows["database"]["state"] == "error"
    assert "127.0.0.1:1, database logs, user ann" in rows["database"]["found"]
    assert "secret" not in json.dumps(rows)


def test_an_invalid_setting_is_named(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_LOGS_PORT", "http")
    code, rows = doctor()
    assert code == 1
    assert "FACTORY_LOGS_PORT" in rows["settings"]["found"]


@contextmanager
def changed(query: Query, change: str, undo: str) -> Iterator[None]:
    query(change)
    query("select pg_reload_conf()")
    try:
        yield
    finally:
        query(undo)
        query("select pg_reload_conf()")


@pytest.mark.parametrize(
    ("name", "value", "state"),
    [("fsync", "off", "error"), ("full_page_writes", "off", "warning"), ("autovacuum", "off", "warning")],
)
def test_a_server_whose_settings_may_lose_logs_is_an_error(
    doctor: Doctor, query: Query, name: str, value: str, state: str
) -> None:
    with changed(query, f"alter system set {name} = {value}", f"alter system reset {name}"):
        while query(f"show {name}") != [{name: value}]:  # the server reads its settings a moment later
            pass
        code, rows = doctor()
    assert rows["database settings"]["state"] == state
    assert rows["database settings"]["advice"] == f"set {name} = on"
    assert code == (state == "error")


def test_a_read_only_role_is_an_error(doctor: Doctor, migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_LOGS_DATABASE_URL", with_parameters(migrated_url, "default_transaction_read_only=on"))
    code, rows = doctor()
    assert code == 1
    assert "default_transaction_read_only" in rows["database settings"]["found"]


def test_too_few_connections_for_the_workers_are_a_warning(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    # 200 connections, of which 3 are reserved; a worker opens 23, and commands need 10.
    for workers, state in (("8", "ok"), ("9", "warning")):
        monkeypatch.setenv("FACTORY_LOGS_WORKERS", workers)
        assert doctor()[1]["database settings"]["state"] == state


@pytest.mark.parametrize(
    ("revision", "advice"),
    [("0050", "factory-logs migrate"), ("9999", "upgrade this one"), (None, "factory-logs migrate")],
)
def test_migrations_of_another_version_are_an_error(doctor: Doctor, query: Query, revision: str, advice: str) -> None:
    (before,) = query("select version_num from alembic_version")
    query("delete from alembic_version")
    if revision is not None:
        query(f"insert into alembic_version values ('{revision}')")
    try:
        code, rows = doctor()
    finally:
        query("delete from alembic_version")
        query(f"insert into alembic_version values ('{before['version_num']}')")
    assert code == 1
    assert (rows["tables"]["state"], rows["tables"]["advice"]) == ("error", advice)


def test_an_invalid_index_and_ids_out_of_order_are_warnings(doctor: Doctor, query: Query) -> None:
    index = "update pg_index set indisvalid = {} where indexrelid = 'ix_factory_logs_timestamp'::regclass"
    sequence = "alter sequence factory_logs_factory_log_id_seq cache {}"
    without_index = changed(query, index.format("false"), index.format("true"))
    with without_index, changed(query, sequence.format(10), sequence.format(1)):
        code, rows = doctor()
    assert code == 0
    assert rows["indexes"]["found"] == "not complete: ix_factory_logs_timestamp"
    assert rows["ids"]["state"] == "warning"


@pytest.mark.parametrize(
    ("difference", "state", "words"),
    [(CLOCK_SECONDS, State.OK, "as the"), (6, State.WARNING, "6 s ahead"), (-3600, State.WARNING, "3600 s behind")],
)
def test_a_clock_that_differs_is_a_warning(difference: float, state: State, words: str) -> None:
    check = _clock_check("clock", "the database's", 1_700_000_000 + difference, 1_700_000_000)
    assert check.state is state
    assert words in check.found


@pytest.mark.parametrize(
    ("node", "state", "words"),
    [
        (NodeState("worker1", 5432, version="18.6"), State.OK, "PostgreSQL 18.6"),
        (NodeState("worker1", 5432, "connection refused"), State.ERROR, "does not respond: connection refused"),
        (NodeState("worker1", 5432, has_fsync=False), State.ERROR, "fsync = off"),
        (NodeState("worker1", 5432, most_prepared=0), State.ERROR, "no log can be stored"),
        (NodeState("worker1", 5432, waits_for_recovery=True), State.WARNING, "its logs are invisible"),
    ],
)
def test_a_node_of_a_cluster_is_checked(node: NodeState, state: State, words: str) -> None:
    check = _node_check(node)
    assert (check.subject, check.state) == ("node worker1:5432", state)
    assert words in check.found
    assert bool(check.advice) == (state is not State.OK)


def test_paths_that_cannot_be_written_are_errors(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FACTORY_LOGS_BODY_FILE_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("FACTORY_LOGS_AUDIT_FILE", str(tmp_path / "none" / "audit.log"))
    code, rows = doctor()
    assert code == 1
    assert (rows["long bodies"]["state"], rows["audit file"]["state"]) == ("error", "error")


def test_retention_policies_with_which_serve_does_not_start_are_an_error(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "retention" not in doctor()[1]
    file = tmp_path / "retention.toml"
    monkeypatch.setenv("FACTORY_LOGS_RETENTION_POLICIES", str(file))
    (tmp_path / "a file").touch()
    for text, found in {
        None: "No such file",
        '[[policy]]\nname = "old"\nolder_than = "soon"\n': "policy 'old': older_than: 'soon' is not a duration",
        '[[policy]]\nname = "old"\nolder_than = "90d"\narchive = "a file"\n': "policy 'old': archive: ",
    }.items():
        if text is not None:
            file.write_text(text)
        code, rows = doctor()
        assert (code, rows["retention"]["state"]) == (1, "error")
        assert found in rows["retention"]["found"]
        assert rows["retention"]["advice"]
    file.write_text('[[policy]]\nname = "old"\nolder_than = "90d"\n')
    assert (doctor()[1]["retention"]["state"], doctor()[1]["retention"]["found"]) == ("ok", f"{file}: old")


def embedded(data_dir: Path, **settings: str) -> tuple[int, Rows]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACTORY_LOGS_DATA_DIR", str(data_dir))
        for name, value in settings.items():
            patch.setenv(name, value)
        ran = CliRunner().invoke(app, ["doctor", "--json"])
    return ran.exit_code, {row["subject"]: row for row in json.loads(ran.stdout)}


def test_a_missing_embedded_database_is_an_error_with_the_paths_and_is_not_created(tmp_path: Path) -> None:
    code, rows = embedded(tmp_path / "data")
    assert code == 1
    assert str(tmp_path / "data") in rows["database"]["found"]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "pgdata").touch()
    code, rows = embedded(tmp_path)
    assert (code, rows["database"]["state"]) == (1, "error")


@pytest.mark.slow
def test_the_directory_and_disk_of_an_embedded_database_are_checked(short_tmp: Path) -> None:
    data_dir = short_tmp / "data"
    with running(data_dir):
        code, rows = embedded(data_dir)
        assert (code, rows["tables"]["advice"]) == (1, "factory-logs migrate")
        assert (rows["data directory"]["state"], rows["disk"]["state"]) == ("ok", "ok")
        disk = os.statvfs(data_dir)
        free = disk.f_bavail * disk.f_frsize
        for reserve, state in ((2 * free, "error"), (free * 3 // 4, "warning"), (0, "ok")):
            assert embedded(data_dir, FACTORY_LOGS_DISK_RESERVE_BYTES=str(reserve))[1]["disk"]["state"] == state
        (data_dir / "pgdata").chmod(0o755)
        code, rows = embedded(data_dir)
        assert rows["data directory"]["state"] == "error"
        assert "chmod 700" in rows["data directory"]["advice"]
        (data_dir / "pgdata").chmod(0o700)


class _Portal(http.server.BaseHTTPRequestHandler):
    """Responds to every request with a page, like a captive portal."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>log in</html>")

    def log_message(self, *_: object) -> None:
        pass


def test_a_ca_file_that_cannot_be_used_is_an_error(doctor: Doctor, tmp_path: Path) -> None:
    code, rows = doctor("--url", "https://127.0.0.1:1", "--ca-file", str(tmp_path / "missing.crt"))
    assert code == 1
    assert rows["service"]["found"].endswith("missing.crt cannot be used: No such file or directory")
    assert "--ca-file" in rows["service"]["advice"]


@pytest.mark.slow
def test_a_running_service_and_a_token_are_checked(run: Run, doctor: Doctor, migrated_url: str, tmp_path: Path) -> None:
    make_user(run)
    token = run("tokens", "issue", "jig-07").stdout.strip()
    for_a_jig = run("tokens", "issue", "jig-07", "--only-write").stdout.strip()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    code, rows = doctor("--url", url)
    assert (code, rows["service"]["state"]) == (1, "error")
    with serving({"FACTORY_LOGS_DATABASE_URL": migrated_url}, port, tmp_path / "log"):
        code, rows = doctor("--url", url, "--token", token)
        assert (code, rows["service"]["state"], rows["token"]["state"]) == (0, "ok", "ok")
        assert rows["service clock"]["state"] == "ok"
        (tmp_path / "token").write_text(for_a_jig)
        code, rows = doctor("--url", url, "--token-file", str(tmp_path / "token"))
        assert (code, rows["token"]["state"]) == (0, "ok")
        assert "only-write" in rows["token"]["found"]
        code, rows = doctor("--url", url, "--token", "a" * 64)
        assert (code, rows["token"]["state"]) == (1, "error")
        assert not re.search("a{64}", json.dumps(rows))
    with http.server.HTTPServer(("127.0.0.1", 0), _Portal) as portal:
        threading.Thread(target=portal.serve_forever, daemon=True).start()
        code, rows = doctor("--url", f"http://127.0.0.1:{portal.server_port}")
        portal.shutdown()
    assert (code, rows["service"]["state"]) == (1, "error")
    assert "no factory-logs" in rows["service"]["found"]
