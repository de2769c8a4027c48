"""The service behind a real nginx and a real Caddy with the configurations of deploy/, TLS of a private CA included."""

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from factory_logs.client import Client, ClientSettings, Reader
from factory_logs.db.engine import Database
from factory_logs.db.users import UserRepository
from factory_logs.permissions import Level
from factory_logs.security.tokens import issue_token
from tests.serving import free_port, serving

ROOT = Path(__file__).parents[3]
PROGRAMS = {name: shutil.which(name) or shutil.which(name, path="/usr/sbin") for name in ("nginx", "caddy", "openssl")}
LOG = {"app_name": "tiger", "timestamp": "2024-01-31"}
NGINX_MAIN = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{site}
}}
"""
CADDY_MAIN = """{{
	admin off
	auto_https disable_redirects
	storage file_system {folder}
}}
{site}
"""

pytestmark = pytest.mark.slow


def replaced(text: str, changes: dict[str, str]) -> str:
    """Return the text with each of `changes`, which must occur in it exactly once."""
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def nginx_command(folder: Path, service: int, port: int) -> list[str]:
    """Return the command of nginx with the configuration of deploy/ on free ports."""
    site = replaced(
        (ROOT / "deploy" / "nginx" / "factory-logs.conf").read_text(),
        {
            "127.0.0.1:8000": f"127.0.0.1:{service}",
            "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
            "listen 80;": f"listen 127.0.0.1:{free_port()};",
            "/etc/ssl/certs/logs.example.crt": f"{folder}/server.crt",
            "/etc/ssl/private/logs.example.key": f"{folder}/server.key",
        },
    )
    file = folder / "nginx.conf"
    file.write_text(NGINX_MAIN.format(folder=folder, site=site))
    return [str(PROGRAMS["nginx"]), "-p", str(folder), "-c", str(file), "-e", str(folder / "error.log")]


def caddy_command(folder: Path, service: int, port: int) -> list[str]:
    """Return the command of Caddy with the configuration of deploy/ on free ports."""
    site = replaced(
        (ROOT / "deploy" / "caddy" / "Caddyfile").read_text(),
        {
            "127.0.0.1:8000": f"127.0.0.1:{service}",
            "logs.example {": f"https://localhost:{port} {{",
            "/etc/ssl/certs/logs.example.crt": f"{folder}/server.crt",
            "/etc/ssl/private/logs.example.key": f"{folder}/server.key",
        },
    )
    file = folder / "Caddyfile"
    file.write_text(CADDY_MAIN.format(folder=folder, site=site))
    return [str(PROGRAMS["caddy"]), "run", "--adapter", "caddyfile", "--config", str(file)]


COMMANDS = {"nginx": nginx_command, "caddy": caddy_command}


def make_certificate(folder: Path) -> Path:
    """Write a certificate for localhost with its key, and return its file: a client that trusts it trusts the proxy."""
    subprocess.run(
        [str(PROGRAMS["openssl"]), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", folder / "server.key", "-out", folder / "server.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder / "server.crt"


@contextmanager
def proxy(command: list[str], folder: Path, port: int, ca_file: Path) -> Iterator[None]:
    tls = ssl.create_default_context(cafile=ca_file)
    output = folder / "output"
    with output.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=os.environ | {"HOME": str(folder)}
        )
    try:
        deadline = time.monotonic() + 120
        while True:
            with suppress(httpx.TransportError):
                httpx.get(f"https://localhost:{port}/", verify=tls)
                break
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(300)


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def running(
    request: pytest.FixtureRequest, migrated_url: str, shared_short_tmp: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path, Path]]:
    """Yield the URL of the proxy, the output of the service, and what a client needs to trust the proxy."""
    for program in (request.param, "openssl"):
        if PROGRAMS[program] is None:
            pytest.skip(f"{program} is not installed: apt-get install {program}")
    folder, service, port = shared_short_tmp / request.param, free_port(), free_port()
    folder.mkdir(mode=0o777)
    ca_file = make_certificate(folder)
    output = tmp_path_factory.mktemp("behind-proxy") / "output"
    settings = {"FACTORY_LOGS_DATABASE_URL": migrated_url, "FACTORY_LOGS_TRUSTED_PROXIES": "127.0.0.1"}
    command = COMMANDS[request.param](folder, service, port)
    with serving(settings, service, output), proxy(command, folder, port, ca_file):
        yield f"https://localhost:{port}", output, ca_file


@pytest.fixture
async def token(database: Database) -> str:
    user = await UserRepository(database).create("ann", "Ann", None, Level.SYSTEM)
    return await issue_token(database, user.user_id, expires_at=None)


@pytest.fixture
def client(running: tuple[str, Path, Path], token: str) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Token token={token}"}
    verify = ssl.create_default_context(cafile=running[2])
    with httpx.Client(base_url=f"{running[0]}/logs", headers=headers, timeout=60, verify=verify) as client:
        yield client


def test_links_use_the_address_of_the_proxy(running: tuple[str, Path, Path], client: httpx.Client) -> None:
    for _ in range(3):
        posted = client.post("/v1/factory_logs", json=LOG)
        assert posted.status_code == 201
        assert posted.headers["Location"].startswith(f"{running[0]}/logs/v1/factory_logs/")
        assert client.get(posted.headers["Location"]).json() == posted.json()
    pages = [client.get("/v1/factory_logs?results_per_page=1")]
    while "next" in pages[-1].links:
        pages.append(client.get(pages[-1].links["next"]["url"]))
    assert [len(page.json()["objects"]) for page in pages] == [1, 1, 1]
    assert client.head("/healthz").status_code == 200


def test_the_docs_page_and_all_its_files_are_served(running: tuple[str, Path, Path], client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    loaded = re.findall(r"""(?:src|href)="(/[^"]+)"|url: ['"](/[^'"]+)['"]""", page.text)
    paths = [first or second for first, second in loaded]
    assert len(paths) >= 3
    for path in paths:
        assert client.get(f"{running[0]}{path}").status_code == 200, path
    assert client.get("/openapi.json").json()["servers"] == [{"url": "/logs"}]


def test_a_body_at_the_limit_passes_and_a_larger_one_gets_a_413(client: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}
    size = 16 * 1024 * 1024
    assert client.post("/v1/factory_logs", content=json.dumps([LOG]).ljust(size), headers=headers).status_code == 201
    assert (
        client.post("/v1/factory_logs", content=json.dumps([LOG]).ljust(size + 1), headers=headers).status_code == 413
    )


def test_a_long_q_passes_the_proxy(client: httpx.Client) -> None:
    names = ["x" * 50] * 900
    q = json.dumps({"filters": [{"name": "app_name", "op": "in", "val": names}]}, separators=(",", ":"))
    assert client.get("/v1/factory_logs", params={"q": q}).status_code == 200


def test_each_event_of_a_tail_passes_the_proxy_at_once(client: httpx.Client) -> None:
    with client.stream("GET", "/v1/factory_logs/tail") as tail:
        assert tail.status_code == 200
        lines = tail.iter_lines()
        poster = threading.Thread(target=lambda: client.post("/v1/factory_logs", json=LOG | {"app_name": "followed"}))
        poster.start()
        assert any("followed" in line for line in lines)
        poster.join()


def test_a_caller_cannot_forge_its_address_or_prefix(running: tuple[str, Path, Path], client: httpx.Client) -> None:
    forged = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Prefix": "/evil", "X-Forwarded-Proto": "http"}
    posted = client.post("/v1/factory_logs", json=LOG, headers=forged)
    assert posted.headers["Location"].startswith(f"{running[0]}/logs/v1/")
    client.post("/v1/auth/login", json={"username": "mallory", "password": "x"}, headers=forged)
    (line,) = [line for line in running[1].read_text().splitlines() if '"audit"' in line and "mallory" in line]
    assert json.loads(line)["address"] == "127.0.0.1"


def test_the_proxy_does_not_expose_metrics(client: httpx.Client) -> None:
    assert client.get("/metrics").status_code == 404


def test_a_device_and_a_reader_trust_a_private_ca_by_its_file(
    running: tuple[str, Path, Path], token: str, tmp_path: Path
) -> None:
    url = f"{running[0]}/logs"
    with Client(url, token, spool=tmp_path) as device:
        device.send("privately trusted")
        assert not device.flush(timeout=2)
        assert "certificate" in (device.status().trouble or "")
    with Client(url, token, spool=tmp_path, settings=ClientSettings(ca_file=running[2])) as device:
        assert device.flush(timeout=120)
    q = {"filters": [{"name": "app_name", "op": "==", "val": "privately trusted"}]}
    with Reader(url, token, ca_file=running[2]) as reader:
        assert len(list(reader.logs(q))) == 1


@pytest.mark.parametrize("running", ["nginx"], indirect=True)  # one is enough: the commands see only the certificate
def test_the_commands_of_the_page_trust_a_private_ca(
    running: tuple[str, Path, Path], token: str, migrated_url: str, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "how-to" / "reverse-proxy.md").read_text().partition("## A private CA")[2]
    commands = page.partition("```sh\n")[2].partition("```")[0]
    url = f"{running[0]}/logs"
    environment = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "SERVER": url, "TOKEN": token, "FACTORY_LOGS_DATABASE_URL": migrated_url, "COLUMNS": "200",
    }  # fmt: skip
    (tmp_path / "ca.crt").write_bytes(running[2].read_bytes())
    doctor = "factory-logs doctor --json | grep -A3 '\"token\"'"

    def run(script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    ran = run(f"{commands}\n{doctor} || true")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert '"num_results":0' in ran.stdout.replace(" ", "")
    assert "Delivered" in ran.stderr
    assert "tls_check" in ran.stdout
    assert "acknowledged (201)" in ran.stdout
    assert "valid, and may read" in ran.stdout

    without = run(f"export FACTORY_LOGS_URL={url} FACTORY_LOGS_TOKEN={token}; factory-logs doctor --json || true")
    assert "certificate verify failed" in without.stdout
