"""`spool`, by a person who looks at a jig."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from factory_logs.client.spool import RejectedLine, Spool
from tests.cli.conftest import Query, Run
from tests.client.servers import Server


def test_rejected_logs_are_listed_with_the_servers_error_sent_again_and_dropped(
    run: Run, online: Server, query: Query
) -> None:
    for repair in ("7", "8"):
        sent = run("send", "jig", "--repair-id", repair, "--field", "note=[red]", "--wait", "30")
        assert sent.stderr.endswith("Rejected by the server; the spool keeps it: factory-logs spool show\n")
    shown = run("spool", "show")
    assert shown.stdout.startswith("0 logs wait (0 bytes), 2 are rejected, 0 were delivered, 0 dropped\n")
    assert "repair_id: " in shown.stdout
    assert '"note":["red"]' in shown.stdout or '"note":"[red]"' in shown.stdout
    first, second = (json.loads(line) for line in run("spool", "show", "--json").stdout.splitlines())
    assert (first["number"], json.loads(second["line"])["repair_id"]) == (1, 8)
    assert first["reason"].startswith("repair_id: ")
    assert "... and 1 more; --limit shows more" in run("spool", "show", "--limit", "1").stdout

    assert run("send", "jig", "--wait", "30").stderr == "Delivered\n"

    query("INSERT INTO repairs (repair_id, product_imei) VALUES (7, '352099001761481')")
    assert run("spool", "retry", "1").stderr == "1 log will be sent again\n"
    assert run("spool", "drop", "--all").stderr == "Dropped 1 log\n"
    assert run("send", "jig", "--wait", "30").stderr == "Delivered\n"
    assert [row["repair_id"] for row in query("SELECT repair_id FROM factory_logs ORDER BY 1")] == [7, None, None]
    assert "3 were delivered, 1 dropped" in run("spool", "show").stdout


@pytest.mark.parametrize("arguments", [["show"], ["retry", "1"], ["drop", "--all"]])
def test_a_folder_without_a_spool_is_an_error_that_names_the_option(run: Run, arguments: list[str]) -> None:
    shown = run("spool", *arguments, "--spool", "other")
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert shown.stderr == (
        "error: there is no spool in other; --spool or FACTORY_LOGS_SPOOL names the folder of the client\n"
    )


@pytest.mark.parametrize("arguments", [["retry"], ["drop", "1", "--all"]])
def test_retry_and_drop_need_numbers_or_all(run: Run, arguments: list[str]) -> None:
    run("send", "jig", "--wait", "0")
    refused = run("spool", *arguments)
    assert (refused.exit_code, refused.stderr) == (1, "error: give either numbers of rejected logs or --all\n")


def test_an_output_in_another_encoding_shows_its_missing_characters_escaped(spool: Path) -> None:
    stored = Spool(spool)
    stored.put([], [RejectedLine('{"app_name": "电池"}'.encode(), "bad")])
    stored.file.close()
    shown = subprocess.run(
        [sys.executable, "-m", "factory_logs", "spool", "show", "--spool", str(spool)],
        env=os.environ | {"PYTHONIOENCODING": "cp1252", "COLUMNS": "200"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert r"\u7535\u6c60" in shown.stdout
