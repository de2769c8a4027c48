"""The package as a jig installs it: built here and installed into an empty environment."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from factory_logs.cli.output import SERVER_MODULES

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(shutil.which("uv") is None, reason="uv builds the package")


def uv(*arguments: str | Path, environment: Path | None = None) -> None:
    """Run uv in the project, offline if its cache has everything that is needed."""
    chosen = {} if environment is None else {"UV_PROJECT_ENVIRONMENT": str(environment)}
    variables = {name: value for name, value in os.environ.items() if name != "SSL_CERT_FILE"} | chosen
    for offline in ("1", "0"):
        ran = subprocess.run(
            ["uv", *arguments], cwd=ROOT, env=variables | {"UV_OFFLINE": offline}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if ran.returncode == 0:
            return
    raise AssertionError(ran.stderr)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the sdist and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--python", sys.executable, "--out-dir", folder)
    return folder


@pytest.fixture(scope="module")
def environment(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a new environment with the base package, installed from the sdist with the dependencies of the lock
    file."""
    folder = tmp_path_factory.mktemp("jig") / "venv"
    sync = ("sync", "--python", sys.executable, "--frozen", "--no-default-groups", "--no-install-project")
    uv(*sync, environment=folder)
    (sdist,) = built.glob("*.tar.gz")
    uv("pip", "install", "--python", folder, "--no-deps", sdist)
    return folder


def run(environment: Path, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    variables = {"PATH": os.environ["PATH"], "HOME": str(environment.parent), "COLUMNS": "200"}
    return subprocess.run(
        [environment / "bin" / program, *arguments], cwd=environment.parent, env=variables, capture_output=True,
        text=True, check=False,
    )  # fmt: skip


def test_the_wheel_holds_the_package_with_its_types_and_migrations_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"factory_logs"}
    assert "factory_logs/py.typed" in names
    assert {name for name in names if name.startswith("factory_logs/migrations/versions/")} == {
        f"factory_logs/migrations/versions/{file.name}" for file in (ROOT / "alembic" / "versions").glob("*.py")
    }


def test_the_base_package_is_complete_without_server_and_database(environment: Path) -> None:
    uv("pip", "check", "--python", environment)
    script = f"""
import importlib.util, factory_logs.client
print([name for name in {sorted(SERVER_MODULES)} if importlib.util.find_spec(name)], factory_logs.client.__file__)
"""
    ran = run(environment, "python", "-c", script)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == f"[] {next(environment.glob('lib/*/site-packages'))}/factory_logs/client/__init__.py\n"


def test_the_device_commands_work_with_the_base_package(environment: Path, tmp_path: Path) -> None:
    assert "--spool" in run(environment, "factory-logs", "send", "--help").stdout
    nowhere = ("--url", "http://127.0.0.1:9", "--token", "t", "--spool", tmp_path, "--wait", "0")
    sent = run(environment, "factory-logs", "send", "jig", "--field", "passed=true", *nowhere)
    assert (sent.returncode, "In the spool, not delivered yet" in sent.stderr) == (0, True)
    assert "1 log waits" in run(environment, "factory-logs", "spool", "show", "--spool", tmp_path).stdout


def test_the_reader_works_with_the_base_package_and_a_dataframe_error_names_the_extra(environment: Path) -> None:
    assert "--where" in run(environment, "factory-logs", "query", "--help").stdout
    asked = run(environment, "factory-logs", "yield", "--url", "http://127.0.0.1:9", "--token", "t", "--wait", "0")
    assert (asked.returncode, "no result within 0 s" in asked.stderr) == (1, True)
    script = "from factory_logs.client.read_results import yield_rows; yield_rows({'buckets': []}, []).dataframe()"
    assert "pip install 'factory-logs[pandas]'" in run(environment, "python", "-c", script).stderr


def test_a_server_command_names_the_extra_to_install(environment: Path) -> None:
    ran = run(environment, "factory-logs", "serve")
    assert (ran.returncode, ran.stderr) == (
        1, "error: this command needs the server: pip install 'factory-logs[server]'\n"
    )  # fmt: skip
