"""docker-compose.yml and docker/init.sql, without a container engine: two roles, of which the one with fewer rights
serves."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx
import pytest
import yaml
from alembic import command

from factory_logs.db.migrations import config, upgrade
from factory_logs.embedded import running
from factory_logs.embedded.binaries import installed_tree
from tests import forked
from tests.serving import free_port, serving

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PASSWORDS = {"FACTORY_LOGS_OWNER_PASSWORD": "owner", "FACTORY_LOGS_APP_PASSWORD": "app"}


@pytest.fixture(scope="module")
def roles(shared_short_tmp: Path) -> Iterator[dict[str, str]]:
    """Return the URLs of the roles on a server where docker/init.sql has run as in the postgres image."""
    with running(shared_short_tmp / "docker") as url:
        folder = parse_qs(urlsplit(url).query)["host"][0]
        ran = subprocess.run(
            [psql(), "-h", folder, "-U", "factory_logs", "-d", "factory_logs", "-v", "ON_ERROR_STOP=1", "-f", "-"],
            input=(ROOT / "docker" / "init.sql").read_text(), env=PASSWORDS, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        yield {role: f"postgresql://factory_logs_{role}@/factory_logs?host={folder}" for role in ("owner", "app")}


def psql() -> str:
    own = installed_tree() / "bin" / "psql"
    return str(own) if own.exists() else "psql"


@pytest.fixture(scope="module")
async def migrated(roles: dict[str, str]) -> dict[str, str]:
    await upgrade(roles["owner"])
    return roles


async def test_the_service_runs_end_to_end_as_the_smaller_role(migrated: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    environment = {"FACTORY_LOGS_DATABASE_URL": migrated["app"]}
    with serving(environment, port, tmp_path / "output"):
        made = run(environment, "users", "create", "jig", "--permission", "SYSTEM", stdin="a secret\n")
        assert made.returncode == 0, made.stderr
        token = run(environment, "tokens", "issue", "jig").stdout.strip()
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Token token={token}"}, timeout=60
        ) as client:
            assert client.get("/readyz").status_code == 200
            repair = client.post("/v1/repairs", json={"product_imei": "352099001761481"})
            log = {"app_name": "tiger", "timestamp": "2024-01-31", "repair_id": repair.json()["repair_id"]}
            batch = client.post("/v1/factory_logs", json=[log, log], headers={"Idempotency-Key": "k"})
            assert (repair.status_code, batch.status_code) == (201, 201), batch.text
            assert client.get("/v1/factory_logs").json()["num_results"] == 2
            login = client.post("/v1/auth/login", data={"username": "jig", "password": "a secret"})
            assert login.status_code == 200, login.text
            guess = client.post("/v1/auth/login", data={"username": "jig", "password": "guessed"})
            assert guess.status_code == 401, guess.text
    assert run(environment, "tokens", "revoke", token).returncode == 0
    deleted = run(environment, "retention", "--older-than", "1d", "--delete")
    assert (deleted.returncode, deleted.stdout.splitlines()[0]) == (0, "tiger: 2 logs from 2024-01-31 to 2024-01-31")


def run(environment: dict[str, str], *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return forked.run(*arguments, environment=environment, stdin=stdin)


@pytest.mark.parametrize(
    "statement",
    [
        "create table mine (a int)",
        "create schema mine",
        "alter table factory_logs add column mine int",
        "drop table factory_logs",
        "truncate factory_logs",
        "truncate login_tries",
        "alter table login_tries set logged",
        "create index on factory_logs (created_by)",
        "create role mine",
        "alter role factory_logs_owner password 'mine'",
    ],
)
async def test_the_smaller_role_cannot_change_the_schema(migrated: dict[str, str], statement: str) -> None:
    connection = await asyncpg.connect(migrated["app"])
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


async def test_the_smaller_role_cannot_migrate_and_the_error_names_a_role_that_can(migrated: dict[str, str]) -> None:
    await asyncio.to_thread(command.downgrade, config(migrated["owner"]), "-1")
    result = run({"FACTORY_LOGS_DATABASE_URL": migrated["app"]}, "migrate")
    assert result.returncode == 1
    assert "run factory-logs migrate as a user who may" in result.stderr
    await upgrade(migrated["owner"])


def test_the_compose_file_is_consistent() -> None:
    services = COMPOSE["services"]
    started = {name for name, service in services.items() if "profiles" not in service}
    assert started == {"postgres", "migrate", "api"}
    for name, service in services.items():
        assert service.keys() & {"image", "build"}, name
        needs = service.get("depends_on", {})
        for needed in needs:
            assert needed in started or services[needed]["profiles"] == service["profiles"]
            waits = isinstance(needs, dict) and needs[needed]["condition"] == "service_healthy"
            assert not waits or "healthcheck" in services[needed], (
                f"{name} waits for {needed}, which has no health check"
            )
    assert "factory_logs_owner:" in services["migrate"]["environment"]["FACTORY_LOGS_DATABASE_URL"]
    assert "factory_logs_app:" in services["api"]["environment"]["FACTORY_LOGS_DATABASE_URL"]
    assert services["api"]["ports"] == ["${FACTORY_LOGS_PUBLISH:-127.0.0.1:8000}:8000"]
    mounts = [mount.partition(":")[0] for service in services.values() for mount in service.get("volumes", ())]
    for mount in mounts:
        assert mount in COMPOSE["volumes"] or (ROOT / mount).exists(), mount


def test_the_init_script_reads_the_variables_that_the_composition_sets() -> None:
    script = (ROOT / "docker" / "init.sql").read_text()
    given = COMPOSE["services"]["postgres"]["environment"]
    for name in PASSWORDS:
        assert name in given
        assert f" {name}\n" in script


def test_the_image_runs_as_an_unprivileged_user_and_copies_existing_files() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("FROM ")][-1] == "FROM python:3.11-slim"
    users = [line for line in lines if line.startswith("USER ")]
    assert users == ["USER factory-logs"]
    (entry,) = [line for line in lines if line.startswith("ENTRYPOINT ")]
    assert json.loads(entry.removeprefix("ENTRYPOINT ")) == ["factory-logs"]
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source.removeprefix("./")).exists(), source
                assert source.removeprefix("./") in allowed, f"{source} is kept out by .dockerignore"


def test_the_health_check_of_the_image_uses_the_port_setting(migrated: dict[str, str], tmp_path: Path) -> None:
    text = (ROOT / "Dockerfile").read_text()
    program, *arguments = json.loads(text.partition("HEALTHCHECK ")[2].partition("CMD ")[2].splitlines()[0])
    assert program == "python"
    check = [sys.executable, *arguments]
    port = free_port()
    environment = os.environ | {"FACTORY_LOGS_PORT": str(port)}
    assert subprocess.run(check, env=environment, capture_output=True, check=False).returncode != 0
    with serving({"FACTORY_LOGS_DATABASE_URL": migrated["app"]}, port, tmp_path / "output"):
        checked = subprocess.run(check, env=environment, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr


def test_the_image_sets_the_port_of_its_health_check_and_serves_without_options() -> None:
    lines = [line.strip(" \\") for line in (ROOT / "Dockerfile").read_text().splitlines()]
    assert {"FACTORY_LOGS_HOST=0.0.0.0", "FACTORY_LOGS_PORT=8000", "EXPOSE 8000", 'CMD ["serve"]'} <= set(lines)
    (user,) = re.findall(r"useradd --system --uid (\d+)", "\n".join(lines))
    assert 100 <= int(user) <= 999, "outside of SYS_UID_MIN and SYS_UID_MAX of /etc/login.defs"
