"""The scrape configuration and alert rules of deploy/: valid, tested by promtool, and of metrics that exist."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from factory_logs import metrics

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
RULES = (FOLDER / "factory-logs.rules.yml").read_text()
NEEDS_PROMTOOL = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed: apt-get install prometheus"
)


@pytest.mark.slow
@NEEDS_PROMTOOL
@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("test", "rules", "factory-logs.tests.yml")],
    ids=["configuration", "rules"],
)
def test_promtool_accepts_the_configuration_and_rules(arguments: tuple[str, ...]) -> None:
    ran = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_each_alert_has_a_test() -> None:
    alerts = re.findall(r"- alert: (\w+)", RULES)
    assert len(alerts) == len(set(alerts)) >= 10
    tests = (FOLDER / "factory-logs.tests.yml").read_text()
    assert [alert for alert in alerts if tests.count(alert) < 2] == []


def test_each_metric_that_a_rule_names_is_in_the_exposition() -> None:
    named = set(re.findall(r"\b(factory_logs_[a-z_]+)\b", RULES))
    exposed = set(re.findall(r"^# TYPE (\w+) ", metrics.exposition().decode(), re.MULTILINE))
    assert named
    assert named <= exposed
