"""`ship` reads the log file of another program while that program writes."""

import json
import os
from pathlib import Path

from tests.cli.conftest import Query, Run
from tests.cli.device.jig import running, spooled, until
from tests.client.servers import Server


def test_ship_reads_a_file_once_and_continues_after_a_stop(
    run: Run, online: Server, query: Query, tmp_path: Path
) -> None:
    file = tmp_path / "jig.ndjson"
    file.write_text("".join(json.dumps({"app_name": "own", "fields": {"n": n}}) + "\n" for n in range(3)) + "no JSON\n")
    arguments = ("ship", file, "--app-name", "jig", "--tag", "jig_id=J-07")
    shipped = run(*arguments)
    assert shipped.stderr == (
        f"Spooled 3 lines of {file}\nerror: 1 bad line of {file} is not sent; see factory-logs spool show\n"
    )
    assert shipped.exit_code == 1
    with file.open("a") as opened:
        opened.write(json.dumps({"fields": {"n": 3}}) + "\n")
    shipped = run(*arguments)
    assert (shipped.exit_code, shipped.stderr) == (0, f"Spooled 1 line of {file}\n")
    until(lambda: len(query("SELECT 1 FROM factory_logs")) == 4)
    rows = query("SELECT app_name, tags::text, (fields->>'n')::int n FROM factory_logs ORDER BY factory_log_id")
    assert [(row["app_name"], row["n"]) for row in rows] == [("own", 0), ("own", 1), ("own", 2), ("jig", 3)]
    assert {row["tags"] for row in rows} == {'{"jig_id": "J-07"}'}
    (bad,) = map(json.loads, run("spool", "show", "--json").stdout.splitlines())
    assert (bad["line"], bad["reason"].startswith("not JSON")) == ("no JSON", True)


def test_ship_plain_reads_lines_of_text(run: Run, spool: Path, tmp_path: Path) -> None:
    file = tmp_path / "jig.log"
    file.write_bytes(b"battery ok\r\nodd \xff\x00 bytes\n")
    assert (
        run("ship", file, "--plain").stderr
        == "error: --plain needs --app-name, because a line of text has no app_name\n"
    )
    assert run("ship", file, "--plain", "--app-name", "jig").stderr == f"Spooled 2 lines of {file}\n"
    assert "2 logs wait" in run("spool", "show").stdout
    assert run("ship", tmp_path / "none").stderr == f"error: there is no file {tmp_path / 'none'}\n"


def test_a_file_that_cannot_be_read_is_an_error_without_a_traceback(run: Run, tmp_path: Path) -> None:
    shipped = run("ship", tmp_path, "--plain", "--app-name", "jig")
    assert (shipped.exit_code, shipped.stderr) == (1, f"error: {tmp_path} cannot be read: Is a directory\n")


SURROGATES = [
    b'{"app_name":"jig","\\ud800":1}',
    b'{"app_name":"jig","tags":{"\\ud800":{"x":"\\u0000"}}}',
    b'{"app_name":"\\ud800"}',
    b'{"app_name":"jig","timestamp":"\\ud800"}',
]


def test_ship_sets_a_line_with_a_lone_surrogate_aside_and_continues(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "jig.ndjson"
    file.write_bytes(b"\n".join([*SURROGATES, b'{"app_name":"good"}', b""]))
    shipped = run("ship", file)
    assert shipped.stderr == (
        f"Spooled 1 line of {file}\nerror: 4 bad lines of {file} are not sent; see factory-logs spool show\n"
    )
    assert shipped.exit_code == 1
    bad = [json.loads(line) for line in run("spool", "show", "--json").stdout.splitlines()]
    assert [log["line"].encode() for log in bad] == SURROGATES
    assert r"tags.\ud800.x: the NUL character cannot be stored" in bad[1]["reason"]
    assert run("ship", file).stderr == f"Spooled 0 lines of {file}\n"


def test_ship_reads_a_file_whose_name_is_not_utf_8(run: Run, tmp_path: Path) -> None:
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/jig\xff.ndjson"))
    file.write_text('{"app_name": "jig"}\n')
    assert run("ship", file).exit_code == 0
    assert run("ship", file).stderr.startswith("Spooled 0 lines of ")
    assert "1 log waits" in run("spool", "show").stdout


def test_ship_leaves_an_unfinished_last_line_for_the_next_run(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "jig.ndjson"
    file.write_text('{"app_name": "jig"}\n{"app_name": "j')
    shipped = run("ship", file)
    left = "The last line has no line end yet; the next run ships it when it is complete\n"
    assert (shipped.exit_code, shipped.stderr) == (0, f"Spooled 1 line of {file}\n{left}")
    with file.open("a") as opened:
        opened.write('ig"}\n')
    assert run("ship", file).stderr == f"Spooled 1 line of {file}\n"


def test_ship_ignores_a_byte_order_mark(run: Run, tmp_path: Path) -> None:
    file, text = tmp_path / "jig.ndjson", tmp_path / "jig.txt"
    file.write_bytes(b'\xef\xbb\xbf{"app_name": "jig"}\n')
    text.write_bytes(b"\xef\xbb\xbfbattery ok\n")
    assert run("ship", file).exit_code == 0
    assert run("ship", text, "--plain", "--app-name", "jig").exit_code == 0
    assert spooled(tmp_path / "spool")[1]["fields"] == {"message": "battery ok"}


def test_ship_follow_survives_rotation_of_the_file_and_being_killed(
    online: Server, query: Query, tmp_path: Path, run: Run
) -> None:
    file = tmp_path / "jig.ndjson"

    def write(*numbers: int) -> None:
        with file.open("a") as opened:
            opened.writelines(json.dumps({"app_name": "jig", "fields": {"n": n}}) + "\n" for n in numbers)

    def stored() -> list[int]:
        rows = query("SELECT (fields->>'n')::int n FROM factory_logs ORDER BY factory_log_id")
        return [row["n"] for row in rows]

    write(0, 1)
    arguments = ("ship", file, "--follow", "--rotated-seconds", "0.1")
    with running(*arguments) as ship:
        until(lambda: stored() == [0, 1])
        other = run(*arguments)
        assert (other.exit_code, "is being shipped by another process" in other.stderr) == (1, True)
        write(2)
        file.rename(tmp_path / "jig.ndjson.1")
        write(3)
        until(lambda: stored() == [0, 1, 2, 3])
        ship.kill()
    write(4)
    (tmp_path / "jig.ndjson.1").rename(tmp_path / "jig.ndjson.2")
    file.rename(tmp_path / "jig.ndjson.1")
    write(5)
    with running(*arguments):
        until(lambda: len(stored()) >= 6)
    assert stored() == [0, 1, 2, 3, 4, 5]
