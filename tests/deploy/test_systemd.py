"""The systemd units of deploy/: valid, hardened, and starting commands that exist."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.serving import COMMAND

UNITS = sorted((Path(__file__).parents[2] / "deploy" / "systemd").glob("*.service"))
HIGHEST_EXPOSURE = 3.0
NEEDS_SYSTEMD = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed: apt-get install systemd"
)
EACH_UNIT = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


def test_there_is_a_unit_for_the_service_and_one_for_a_device() -> None:
    assert [unit.name for unit in UNITS] == ["factory-logs-ship.service", "factory-logs.service"]


@NEEDS_SYSTEMD
@EACH_UNIT
def test_the_exposure_is_low(unit: Path) -> None:
    analyzed = analyze("security", "--offline=true", "--no-pager", unit)
    match = re.search(r"Overall exposure level for \S+: (\d+\.\d+)", analyzed.stdout)
    assert match is not None, analyzed.stderr
    assert float(match[1]) < HIGHEST_EXPOSURE


@NEEDS_SYSTEMD
@EACH_UNIT
def test_systemd_understands_each_line(unit: Path, tmp_path: Path) -> None:
    program = tmp_path / "factory-logs"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/factory-logs/bin/factory-logs", str(program)))
    verified = analyze("verify", "--man=no", "--recursive-errors=no", copy)
    assert (verified.returncode, verified.stderr) == (0, "")


@pytest.mark.slow
@EACH_UNIT
def test_the_command_has_its_options(unit: Path) -> None:
    (line,) = re.findall(r"^ExecStart=/opt/factory-logs/bin/factory-logs (.+)$", unit.read_text(), re.MULTILINE)
    name, *arguments = shlex.split(line)
    shown = subprocess.run(
        [*COMMAND, name, "--help"], capture_output=True, text=True, check=False, env={"COLUMNS": "200"}
    )
    assert shown.returncode == 0
    for option in (argument for argument in arguments if argument.startswith("--")):
        assert option in shown.stdout
