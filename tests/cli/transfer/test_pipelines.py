"""A command that waits for the other program of its pipeline ends at the first signal."""

import os
import signal
import tempfile

import pytest

from tests import forked
from tests.cli.conftest import Query

WAIT_SECONDS = 120
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_import_that_waits_for_its_input_can_be_stopped(migrated_url: str, number: signal.Signals) -> None:
    reading, writing = os.pipe()
    with tempfile.TemporaryFile("w+") as output, open(writing, "wb") as pipe:
        with open(reading, "rb") as stdin:
            process = forked.start(
                "factory_logs", ["import", "-", "--format", "ndjson"],
                os.environ | {"FACTORY_LOGS_DATABASE_URL": migrated_url}, stdin=stdin, stdout=output, stderr=output,
            )  # fmt: skip
        pipe.write(bytes(1024 * 1024))  # more than a pipe takes before it is read
        process.send_signal(number)
        assert process.wait(WAIT_SECONDS) == 130
        output.seek(0)
        assert "Traceback" not in output.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_export_that_waits_for_its_reader_can_be_stopped(
    migrated_url: str, query: Query, number: signal.Signals
) -> None:
    query(
        "insert into factory_logs (app_name, timestamp, tags)"
        " select 'tiger', now(), jsonb_build_object('x', repeat('x', 1000)) from generate_series(1, 2000)"
    )
    reading, writing = os.pipe()
    with tempfile.TemporaryFile("w+") as errors, open(reading, "rb") as lines:
        with open(writing, "wb") as stdout:
            process = forked.start(
                "factory_logs", ["export"],
                os.environ | {"FACTORY_LOGS_DATABASE_URL": migrated_url}, stdout=stdout, stderr=errors,
            )  # fmt: skip
        assert lines.readline()
        process.send_signal(number)
        assert process.wait(WAIT_SECONDS) == 130
        errors.seek(0)
        assert "Traceback" not in errors.read()
