"""The embedded PostgreSQL keeps its data, is shared by processes, stops with the last one, and reports clear errors."""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from factory_logs.embedded import EmbeddedPostgresError, is_running, running, server
from tests import forked

pytestmark = pytest.mark.slow

WAIT_SECONDS = 120
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
NOBODY = pwd.getpwnam("nobody")

USER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from factory_logs.embedded import running
    with running(Path(sys.argv[1])) as url:
        print(url, flush=True)
        sys.stdin.read()
    """
)


IS_RUNNING = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from factory_logs.embedded import is_running
    print(is_running(Path(sys.argv[1])))
    """
)


class UserProcess:
    """Another process that uses the server of a data directory until a test ends it."""

    def __init__(self, data_dir: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(data_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def url(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def leave(self) -> int:
        self.process.communicate()
        return self.process.returncode

    def end_by(self, number: int) -> None:
        os.killpg(self.process.pid, number)
        self.process.communicate()


def fetch(url: str, query: str) -> object:
    async def run() -> object:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(run())


def server_pid(data_dir: Path) -> int:
    return int((data_dir / "pgdata" / "postmaster.pid").read_text().split()[0])


@pytest.fixture(scope="module")
def made_once(shared_short_tmp: Path) -> Path:
    """Return a data directory with a stopped server, which tests copy because initdb takes most of a test's time."""
    data_dir = shared_short_tmp / "made-once"
    with running(data_dir):
        pass
    return data_dir


@pytest.fixture
def data_dir(short_tmp: Path, made_once: Path) -> Path:
    folder = short_tmp / "data-dir"
    subprocess.run(["cp", "-a", str(made_once), str(folder)], check=True)
    return folder


def test_data_is_still_there_in_the_next_run(data_dir: Path) -> None:
    with running(data_dir) as url:
        fetch(url, "create table kept as select 42 as answer")
    assert not is_running(data_dir)
    with running(data_dir) as url:
        assert fetch(url, "select answer from kept") == 42


def test_commits_are_flushed_to_disk_and_text_is_utf8(data_dir: Path) -> None:
    with running(data_dir) as url:
        wanted = {
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "data_checksums": "on",
            "server_encoding": "UTF8",
            "listen_addresses": "",
            "max_connections": "200",
        }
        assert {name: fetch(url, f"show {name}") for name in wanted} == wanted


def test_the_server_is_sized_for_the_given_memory_at_each_start(data_dir: Path) -> None:
    with running(data_dir, memory_bytes=2**30) as url:
        assert fetch(url, "show shared_buffers") == "256MB"
    with running(data_dir, memory_bytes=2**31) as url:
        assert fetch(url, "show shared_buffers") == "512MB"
        assert fetch(url, "show wal_compression") == "off", "this PostgreSQL has no fast codec"


def test_a_setting_of_the_operator_takes_precedence(data_dir: Path) -> None:
    with running(data_dir) as url:
        fetch(url, "alter system set checkpoint_timeout = '7min'")
    with running(data_dir) as url:
        assert fetch(url, "show checkpoint_timeout") == "7min"


def test_the_socket_is_private(data_dir: Path) -> None:
    with running(data_dir) as url:
        folder = Path(parse_qs(urlsplit(url).query)["host"][0])
        assert folder.stat().st_mode & 0o777 == 0o700


def test_two_users_share_one_server_and_the_last_one_stops_it(data_dir: Path) -> None:
    other = UserProcess(data_dir)
    assert other.url()
    with running(data_dir) as url:
        first = server_pid(data_dir)
        assert other.leave() == 0
        assert server_pid(data_dir) == first
        assert fetch(url, "select 1") == 1
    assert not is_running(data_dir)


def test_simultaneous_users_of_a_new_directory_share_one_server(short_tmp: Path) -> None:
    data_dir = short_tmp / "at-once"
    users = [UserProcess(data_dir) for _ in range(4)]
    assert len({user.url() for user in users}) == 1
    assert is_running(data_dir)
    assert [user.leave() for user in users] == [0, 0, 0, 0]
    assert not is_running(data_dir)


def test_one_process_may_use_the_server_twice(data_dir: Path) -> None:
    with running(data_dir) as url:
        with running(data_dir) as same:
            assert same == url
        assert fetch(url, "select 1") == 1
    assert not is_running(data_dir)


def test_a_server_left_by_a_killed_user_is_shared_and_then_stopped(data_dir: Path) -> None:
    other = UserProcess(data_dir)
    assert other.url()
    left = server_pid(data_dir)
    other.end_by(signal.SIGKILL)
    assert is_running(data_dir)
    with running(data_dir) as url:
        assert server_pid(data_dir) == left
        assert fetch(url, "select 1") == 1
    assert not is_running(data_dir)


def test_the_server_survives_the_interrupt_of_the_terminal(data_dir: Path) -> None:
    other = UserProcess(data_dir)
    assert other.url()
    with running(data_dir) as url:
        other.end_by(signal.SIGINT)
        assert fetch(url, "select 1") == 1


def test_a_killed_server_is_recovered(data_dir: Path) -> None:
    with running(data_dir) as url:
        fetch(url, "create table kept as select 42 as answer")
        os.kill(server_pid(data_dir), signal.SIGKILL)
        with running(data_dir) as url:
            assert fetch(url, "select answer from kept") == 42
    assert not is_running(data_dir)


def test_a_recovery_is_waited_for_however_long_it_takes_with_a_notice(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = data_dir / "pgdata"
    with (cluster / "postgresql.conf").open("a") as file:
        file.write("restore_command = 'sleep 3; false'\nhot_standby = off\n")
    (cluster / "recovery.signal").touch()
    shutil.chown(cluster / "recovery.signal", *cluster.stat()[4:6])
    monkeypatch.setattr(server, "START_SECONDS", 1)
    monkeypatch.setattr(server, "NOTICE_SECONDS", 0)
    with running(data_dir) as url:
        assert capsys.readouterr().err.startswith("Waiting for PostgreSQL on ")
        assert fetch(url, "select pg_is_in_recovery()") is False
        assert "starting archive recovery" in (data_dir / "postgres.log").read_text()


def test_a_process_id_that_another_program_has_is_not_mistaken_for_the_server(data_dir: Path) -> None:
    pid_file = data_dir / "pgdata" / "postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n{data_dir / 'pgdata'}\n")
    assert not is_running(data_dir)
    with running(data_dir) as url:
        assert fetch(url, "select 1") == 1


def test_a_program_that_has_the_process_id_of_a_killed_server_is_not_stopped(data_dir: Path) -> None:
    cluster = data_dir / "pgdata"
    with running(data_dir):
        first, *rest = (cluster / "postmaster.pid").read_text().splitlines(keepends=True)
        os.kill(int(first), signal.SIGKILL)
        # pg_ctl could signal it only as a program of the same user
        other = subprocess.Popen(["sleep", "600"], user=cluster.stat().st_uid)
        (cluster / "postmaster.pid").write_text("".join([f"{other.pid}\n", *rest]))
    with other:
        assert other.poll() is None
        other.kill()


@as_root
def test_root_without_the_capability_to_trace_processes_recognises_the_server(data_dir: Path) -> None:
    # as in a container of Docker
    command = ["setpriv", "--bounding-set=-sys_ptrace", sys.executable, "-c", IS_RUNNING, str(data_dir)]
    with running(data_dir):
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True\n"
    pid_file = data_dir / "pgdata" / "postmaster.pid"
    with subprocess.Popen(["sleep", "600"], user=NOBODY.pw_uid) as other:
        pid_file.write_text(f"{other.pid}\n{data_dir / 'pgdata'}\n")
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"
        other.kill()


def recover_for_ever(data_dir: Path) -> None:
    """Let each start of the server begin a recovery that does not end."""
    cluster = data_dir / "pgdata"
    with (cluster / "postgresql.conf").open("a") as file:
        file.write("restore_command = 'touch recovering; sleep 600; false'\nhot_standby = off\n")
    (cluster / "recovery.signal").touch()
    shutil.chown(cluster / "recovery.signal", *cluster.stat()[4:6])


def wait_for_recovery(data_dir: Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not (data_dir / "pgdata" / "recovering").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_service_that_ends_does_not_wait_for_a_recovery(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "START_SECONDS", 1)
    with running(data_dir, watch=True):
        recover_for_ever(data_dir)
        os.kill(server_pid(data_dir), signal.SIGKILL)
        wait_for_recovery(data_dir)
    assert not is_running(data_dir)
    assert "archive recovery complete" not in (data_dir / "postgres.log").read_text()


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        (["serve", "--port", "0"], signal.SIGTERM),
        (["users", "list"], signal.SIGINT),
        (["users", "list"], signal.SIGTERM),
        (["migrate"], signal.SIGTERM),
        (["doctor"], signal.SIGTERM),
    ],
)
def test_a_command_that_is_stopped_during_a_recovery_stops_the_server(
    data_dir: Path, tmp_path: Path, arguments: list[str], number: signal.Signals
) -> None:
    recover_for_ever(data_dir)
    with (tmp_path / "output").open("w+") as output:
        environment = os.environ | {"FACTORY_LOGS_DATA_DIR": str(data_dir)}
        process = forked.start("factory_logs", arguments, environment, stdout=output, stderr=output)
        wait_for_recovery(data_dir)
        process.send_signal(number)
        assert process.wait(WAIT_SECONDS) == (0 if arguments[0] == "serve" else 130)
        output.seek(0)
        assert "Traceback" not in output.read()
    assert not is_running(data_dir)


@pytest.mark.parametrize("content", [b"", b"\n", b"\0" * 100, b"torn"])
@pytest.mark.parametrize("name", ["pgdata/postmaster.pid", "socket/.s.PGSQL.5432.lock"])
def test_a_lock_file_that_a_power_cut_has_damaged_does_not_prevent_a_start(
    data_dir: Path, name: str, content: bytes
) -> None:
    with running(data_dir):  # makes the folder of the socket
        pass
    file = data_dir / name
    file.write_bytes(content)
    shutil.chown(file, *file.parent.stat()[4:6])
    assert not is_running(data_dir)
    with running(data_dir) as url:
        assert fetch(url, "select 1") == 1


def test_an_interrupted_first_start_is_repeated(short_tmp: Path) -> None:
    data_dir = short_tmp / "broken-off"
    (data_dir / "pgdata.new").mkdir(parents=True)
    (data_dir / "pgdata.new" / "PG_VERSION").write_text("18\n")
    with running(data_dir) as url:
        assert fetch(url, "select 1") == 1


def test_a_long_path_still_allows_a_socket(made_once: Path, short_tmp: Path) -> None:
    data_dir = short_tmp / ("long" * 40)
    subprocess.run(["cp", "-a", str(made_once), str(data_dir)], check=True)
    with running(data_dir) as url:
        assert fetch(url, "select 1") == 1
        folder = Path(parse_qs(urlsplit(url).query)["host"][0])
        assert folder.parent == Path("/tmp")
    shutil.rmtree(folder)


def test_a_path_with_blanks_and_quotes_works(made_once: Path, short_tmp: Path) -> None:
    data_dir = short_tmp / "it's 100% a, b&c"
    subprocess.run(["cp", "-a", str(made_once), str(data_dir)], check=True)
    with running(data_dir) as url:
        assert fetch(url, "select 1") == 1


def test_data_of_another_version_is_refused(data_dir: Path) -> None:
    (data_dir / "pgdata" / "PG_VERSION").write_text("14\n")
    with pytest.raises(EmbeddedPostgresError, match=r"belongs to PostgreSQL 14, but this is PostgreSQL 18"):
        running(data_dir).__enter__()


@pytest.mark.parametrize(
    ("content", "damage"),
    [
        (None, "PG_VERSION does not exist"),
        (b"", "PG_VERSION contains '' instead of a version"),
        (b"\0\0\0", r"PG_VERSION contains '\\x00\\x00\\x00' instead of a version"),
    ],
)
def test_a_database_without_a_readable_version_is_refused_until_the_file_is_copied(
    data_dir: Path, content: bytes | None, damage: str
) -> None:
    file = data_dir / "pgdata" / "PG_VERSION"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    files = sorted(data_dir.rglob("*"))
    with pytest.raises(EmbeddedPostgresError, match=f"{damage}.*copy {data_dir}/pgdata/base/1/PG_VERSION over it"):
        running(data_dir).__enter__()
    assert {*files, data_dir / "postgres.lock", data_dir / "in-use.lock"} >= set(data_dir.rglob("*"))
    subprocess.run(["cp", "-p", str(data_dir / "pgdata" / "base" / "1" / "PG_VERSION"), str(file)], check=True)
    with running(data_dir) as url:
        assert fetch(url, "select 1") == 1


def test_an_empty_folder_gets_a_new_database(short_tmp: Path) -> None:
    (short_tmp / "empty" / "pgdata").mkdir(parents=True)
    with running(short_tmp / "empty") as url:
        assert fetch(url, "select 1") == 1


def test_a_server_that_does_not_start_shows_the_end_of_its_log(data_dir: Path) -> None:
    with (data_dir / "pgdata" / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    with pytest.raises(EmbeddedPostgresError, match="no_such_setting"):
        running(data_dir).__enter__()


def test_a_data_directory_that_is_a_file_is_refused(short_tmp: Path) -> None:
    (short_tmp / "file").write_text("")
    with pytest.raises(EmbeddedPostgresError, match="FACTORY_LOGS_DATA_DIR"):
        running(short_tmp / "file").__enter__()


def run_as_a_user(data_dir: Path) -> subprocess.CompletedProcess[str]:
    """Use the server of `data_dir` as an unprivileged user: as `nobody` if we are root, with an interpreter that this
    user can reach."""
    given = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONDONTWRITEBYTECODE": "1"}
    somebody = {"user": NOBODY.pw_uid, "group": NOBODY.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        try:
            ran = subprocess.run(
                [python, "-c", USER, str(data_dir)],
                env=given, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd="/", **somebody,
            )  # fmt: skip
        except OSError:  # it lies where root alone may look
            continue
        return ran
    pytest.skip("no Python that a normal user can reach")


def test_a_users_server_runs_as_the_user(short_tmp: Path) -> None:
    data_dir = short_tmp / "of-a-user"
    data_dir.mkdir()
    if os.geteuid() == 0:
        os.chown(data_dir, NOBODY.pw_uid, NOBODY.pw_gid)
    for _ in range(2):
        ran = run_as_a_user(data_dir)
        assert (ran.returncode, ran.stdout.startswith("postgresql://")) == (0, True), ran.stderr
    assert {path.stat().st_uid for path in data_dir.rglob("*")} == {data_dir.stat().st_uid}


def test_a_data_directory_that_a_user_cannot_write_is_refused(short_tmp: Path) -> None:
    closed = short_tmp / "read-only"
    closed.mkdir(mode=0o555)
    ran = run_as_a_user(closed / "data")
    assert ran.returncode == 1
    assert "EmbeddedPostgresError" in ran.stderr
    assert "FACTORY_LOGS_DATA_DIR" in ran.stderr


@as_root
def test_roots_server_runs_as_another_user(data_dir: Path) -> None:
    with running(data_dir):
        owner = (data_dir / "pgdata").stat().st_uid
        assert owner != 0
        assert Path(f"/proc/{server_pid(data_dir)}").stat().st_uid == owner
        assert data_dir.stat().st_uid == 0


@as_root
def test_roots_server_runs_as_the_owner_of_the_data_directory(short_tmp: Path) -> None:
    data_dir = short_tmp / "owned"
    data_dir.mkdir()
    owner = pwd.getpwnam("daemon")
    os.chown(data_dir, owner.pw_uid, owner.pw_gid)
    with running(data_dir) as url:
        assert (data_dir / "pgdata").stat().st_uid == owner.pw_uid
        assert fetch(url, "select 1") == 1


@as_root
def test_the_error_for_root_names_the_folder_that_the_server_cannot_enter(short_tmp: Path) -> None:
    closed = short_tmp / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedPostgresError, match=rf"{closed} is closed.*chmod o\+x {closed}"):
        running(closed / "data").__enter__()
