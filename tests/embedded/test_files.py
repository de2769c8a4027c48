"""Attacks by the server's user on its files while root works with them."""

import os
import pwd
import shutil
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from factory_logs.embedded import EmbeddedPostgresError, is_running, running, server, sharing
from factory_logs.embedded.files import Folder, open_folder
from factory_logs.embedded.os_user import ServerUser

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

OWNER = pwd.getpwnam("daemon")
DAEMON = ServerUser(OWNER.pw_uid, OWNER.pw_gid, OWNER.pw_name)
SECRET = "the secret of root"
FILES = [
    "postgres.lock",
    "in-use.lock",
    "postgres.log",
    "pgdata/PG_VERSION",
    "pgdata/postgresql.conf",
    "pgdata/factory_logs.conf",
    "pgdata/factory_logs.conf.new",
    "pgdata/postmaster.pid",
    "pgdata/postmaster.pid.new",
]
FOLDERS = ["pgdata", "pgdata.new", "socket"]


@pytest.fixture(scope="module")
def made_once(shared_short_tmp: Path) -> Path:
    """Return a stopped server in a data directory that belongs to its user."""
    data_dir = shared_short_tmp / "of-daemon"
    data_dir.mkdir()
    os.chown(data_dir, OWNER.pw_uid, OWNER.pw_gid)
    with running(data_dir):
        pass
    return data_dir


@pytest.fixture
def data_dir(short_tmp: Path, made_once: Path) -> Path:
    folder = short_tmp / "data-dir"
    subprocess.run(["cp", "-a", str(made_once), str(folder)], check=True)
    return folder


@pytest.fixture
def secret(short_tmp: Path) -> Iterator[Path]:
    """Return a file that only root may read, and that must not change."""
    file = short_tmp / "secret"
    file.write_text(f"1\n{SECRET}\n")
    file.chmod(0o600)
    yield file
    status = file.stat()
    assert (status.st_uid, status.st_mode & 0o777, file.read_text()) == (0, 0o600, f"1\n{SECRET}\n")


def use(data_dir: Path) -> str:
    """Use the server once. Return the error if there is one."""
    try:
        with running(data_dir):
            return ""
    except EmbeddedPostgresError as error:
        return str(error)


def leak(data_dir: Path) -> list[Path]:
    """Return the files in the data directory that contain the secret, without following links."""
    found = subprocess.run(["grep", "-rlF", SECRET, str(data_dir)], capture_output=True, text=True, check=False)
    return [Path(line) for line in found.stdout.splitlines()]


def lay(path: Path) -> None:
    """Make space for the attacker's file."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_link_instead_of_a_file_is_not_followed(data_dir: Path, secret: Path, name: str) -> None:
    lay(data_dir / name)
    (data_dir / name).symlink_to(secret)
    os.lchown(data_dir / name, OWNER.pw_uid, OWNER.pw_gid)
    assert not is_running(data_dir)
    assert SECRET not in use(data_dir)
    assert leak(data_dir) == []


TOUCHES: dict[str, Callable[[Folder], object]] = {
    "open": lambda folder: os.close(folder.open("file")),
    "open_or_make": lambda folder: os.close(folder.open_or_make("file")),
    "read": lambda folder: folder.read("file"),
    "append": lambda folder: folder.append("file", "more"),
}


@pytest.fixture
def folder(short_tmp: Path) -> Iterator[Folder]:
    """Return a folder that belongs to the server's user."""
    os.chown(short_tmp, OWNER.pw_uid, OWNER.pw_gid)
    with open_folder(short_tmp, DAEMON) as folder:
        yield folder


@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES)
def test_a_file_of_root_is_neither_read_nor_written_nor_given_away(
    folder: Folder, secret: Path, touch: Callable[[Folder], object]
) -> None:
    os.link(secret, folder.path / "file")
    with pytest.raises(EmbeddedPostgresError, match="does not belong to daemon"):
        touch(folder)


@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES)
def test_a_named_pipe_is_refused_at_once(folder: Folder, touch: Callable[[Folder], object]) -> None:
    os.mkfifo(folder.path / "file")
    os.chown(folder.path / "file", OWNER.pw_uid, OWNER.pw_gid)
    with pytest.raises(EmbeddedPostgresError, match="of another kind"):
        touch(folder)


def test_a_new_file_has_its_owner_before_another_process_can_open_it(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_owner, found = os.fchown, []

    def open_first(descriptor: int, uid: int, gid: int) -> None:
        found.append((folder.path / "file").exists())
        change_owner(descriptor, uid, gid)

    monkeypatch.setattr(os, "fchown", open_first)
    os.close(folder.open_or_make("file"))
    os.close(folder.open("file"))
    assert (found, os.listdir(folder.path)) == ([False], ["file"])


def test_a_file_that_another_process_has_created_meanwhile_is_opened(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def link_second(*arguments: Any, **options: Any) -> None:
        (folder.path / "file").write_text("of the other process")
        os.chown(folder.path / "file", OWNER.pw_uid, OWNER.pw_gid)
        link(*arguments, **options)

    monkeypatch.setattr(os, "link", link_second)
    with os.fdopen(folder.open_or_make("file")) as file:
        assert file.read() == "of the other process"
    assert os.listdir(folder.path) == ["file"]


@pytest.mark.parametrize("path", ["file", "file.new"])
@pytest.mark.parametrize("kind", ["link", "hard link", "named pipe"])
def test_replacing_a_file_always_creates_a_new_one(folder: Folder, secret: Path, path: str, kind: str) -> None:
    laid = folder.path / path
    {"link": laid.symlink_to, "hard link": laid.hardlink_to, "named pipe": lambda _: os.mkfifo(laid)}[kind](secret)
    folder.replace("file", "ours")
    status = (folder.path / "file").lstat()
    assert (stat.S_ISREG(status.st_mode), status.st_uid, folder.read("file")) == (True, OWNER.pw_uid, "ours")


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_a_link_instead_of_a_folder_is_not_followed(data_dir: Path, short_tmp: Path, name: str) -> None:
    roots = short_tmp / "of-root"
    roots.mkdir(mode=0o755)
    (roots / ".s.PGSQL.5432.lock").write_text("")
    (roots / "postmaster.pid").write_text(f"1\n{SECRET}\n")
    before = roots.stat()
    if name == "pgdata.new":
        shutil.rmtree(data_dir / "pgdata")
    lay(data_dir / name)
    (data_dir / name).symlink_to(roots)
    assert f"{data_dir / name} is a link" in use(data_dir)
    after = roots.stat()
    assert (after.st_uid, after.st_mode) == (before.st_uid, before.st_mode)
    assert sorted(path.name for path in roots.iterdir()) == [".s.PGSQL.5432.lock", "postmaster.pid"]


SWAP = textwrap.dedent(
    """
    import os, sys
    pid_file, secret = sys.argv[1:]
    os.setgid(1); os.setuid(1)
    own = pid_file + ".own"
    with open(own, "w") as file:
        file.write("1\\nof daemon\\n")
    link = pid_file + ".link"
    print(flush=True)
    while True:
        os.symlink(secret, link)
        os.rename(link, pid_file)
        os.link(own, link)
        os.rename(link, pid_file)
    """
)


@pytest.mark.slow
def test_swapping_the_pid_file_for_a_link_in_a_race_exposes_no_file_of_root(data_dir: Path, secret: Path) -> None:
    prepared = sharing.prepare(data_dir)
    pid_file = prepared.cluster_dir / "postmaster.pid"
    with subprocess.Popen([sys.executable, "-c", SWAP, str(pid_file), str(secret)], stdout=subprocess.PIPE) as attacker:
        assert attacker.stdout is not None
        attacker.stdout.readline()
        disowned = 0
        for _ in range(3000):
            with suppress(EmbeddedPostgresError, OSError):
                server.disown_pid(prepared)
                disowned += 1
            assert leak(prepared.cluster_dir / "postmaster.pid.new") == []
            with suppress(OSError):
                descriptor = os.open(pid_file, os.O_RDONLY | os.O_NOFOLLOW)
                with os.fdopen(descriptor) as file:
                    assert SECRET not in file.read()
        attacker.kill()
    assert disowned, "the race was never run: each look met the link"


def test_a_folder_above_that_becomes_a_link_is_not_followed(short_tmp: Path) -> None:
    (short_tmp / "elsewhere" / "data").mkdir(parents=True)
    (short_tmp / "above").symlink_to(short_tmp / "elsewhere")
    with (
        pytest.raises(OSError, match="Not a directory"),
        open_folder(short_tmp / "above" / "data", DAEMON),
    ):
        pass


@pytest.mark.slow
def test_a_cluster_that_root_has_moved_to_another_disk_is_used_by_its_link(short_tmp: Path, made_once: Path) -> None:
    data_dir, disk = short_tmp / "of-root", short_tmp / "disk"
    data_dir.mkdir(mode=0o755)
    disk.mkdir(mode=0o755)
    subprocess.run(["cp", "-a", str(made_once / "pgdata"), str(disk / "pgdata")], check=True)
    (data_dir / "pgdata").symlink_to(disk / "pgdata")
    with running(data_dir):
        assert is_running(data_dir)
        assert (disk / "pgdata" / "postmaster.pid").exists()
    assert not is_running(data_dir)
