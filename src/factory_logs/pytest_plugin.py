"""The pytest plugin: with `--factory-logs`, each test item is one log, stored on the device's disk before the next item
begins (docs/how-to/pytest.md).

Without the option, the plugin does not import the client; its fixtures work, and nothing is stored.
"""

import socket
from collections.abc import Generator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

NAME = "factory-logs"
LONGEST_APP_NAME = 255
WORKER_OUTPUT = "factory_logs_stored"
"""The key under which a process of pytest-xdist reports how many logs it has stored."""
RESERVED = frozenset({"passed", "outcome", "duration_seconds", "errors"})
"""The names in `fields` that the plugin sets itself."""
_LOG = pytest.StashKey["ItemLog"]()


@dataclass(slots=True)
class ItemLog:
    """The log of one test item, which its test fills in."""

    product_imei: str | None = None
    repair_id: int | None = None
    tags: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    """Other values of the log than measurements."""
    measurements: dict[str, dict[str, Any]] = field(default_factory=dict)

    def measure(
        self,
        name: str,
        value: object,
        *,
        lower: float | None = None,
        upper: float | None = None,
        unit: str | None = None,
        passed: bool | None = None,
    ) -> bool:
        """Add a measurement; return whether it passed: it is within the limits, both included, and `passed` is not
        False.

        A measurement that did not pass fails the test at its end, so that the other measurements are still made. A
        repeated name replaces the measurement. Raises ValueError for limits on a value that is not a number, and for a
        name in `RESERVED`.
        """
        from factory_logs.client.measurements import is_limit, measurement, path_part

        part = path_part(name)
        if part in RESERVED:
            raise ValueError(f"{name}: the plugin uses this name itself; choose another")
        number, low, high = _plain(value), _plain(lower), _plain(upper)
        for limit in (low, high):
            if limit is not None and not is_limit(limit):
                raise ValueError(f"{name}: a limit must be a finite number, not {limit!r}")
        is_good = passed is None or bool(_plain(passed))
        if low is not None or high is not None:
            if not isinstance(number, int | float) or isinstance(number, bool):
                raise ValueError(f"{name}: only a number can have limits, not {value!r}")
            # These comparisons are false for NaN, which is therefore outside the limits.
            is_good &= (low is None or number >= low) and (high is None or number <= high)
        self.measurements[part] = measurement(value, passed=is_good, lower=low, upper=high, unit=unit)
        return is_good

    def failed(self) -> list[str]:
        """Return the measurements that did not pass, each with its value and limits."""
        return [_described(name, one) for name, one in self.measurements.items() if not one["pass"]]


def _plain(value: Any) -> Any:
    """Return a scalar of numpy as Python's own type, and any other value unchanged."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _described(name: str, one: dict[str, Any]) -> str:
    unit = f" {one['unit']}" if "unit" in one else ""
    limits = [f"{which} limit {one[which]}{unit}" for which in ("lower", "upper") if which in one]
    return f"{name} = {one.get('value')}{unit}" + (f" ({', '.join(limits)})" if limits else "")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup(NAME, "Factory Logs: a log for each test item")
    group.addoption(
        "--factory-logs", action="store_true",
        help="store a log for each test item; FACTORY_LOGS_URL, FACTORY_LOGS_TOKEN, FACTORY_LOGS_SPOOL and the other "
        "variables of the device commands name the server",
    )  # fmt: skip
    group.addoption("--factory-logs-imei", metavar="IMEI", help="the IMEI of the unit under test, 15 digits")
    group.addoption(
        "--factory-logs-tag", action="append", default=[], metavar="NAME=VALUE",
        help="a tag of each log, such as jig_id=J-07; may be repeated",
    )  # fmt: skip
    parser.addini(
        "factory_logs_app", "the first part of each log's app_name; by default the name of the root directory"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--factory-logs") and not config.option.collectonly:
        config.pluginmanager.register(LogRecorder(config), f"{NAME}-recorder")


@pytest.fixture(scope="session")
def factory_logs_imei(request: pytest.FixtureRequest) -> str | None:
    """Return the unit under test, from `--factory-logs-imei`. Override this fixture in conftest.py, for example to scan
    a label."""
    imei: str | None = request.config.getoption("--factory-logs-imei")
    return imei


@pytest.fixture
def factory_logs(request: pytest.FixtureRequest, factory_logs_imei: str | None) -> ItemLog:
    """Return the log of this test item: take measurements with `measure`, set `product_imei`, `tags` and `fields`."""
    log = ItemLog(product_imei=factory_logs_imei)
    request.node.stash[_LOG] = log
    return log


@pytest.fixture(autouse=True)
def _factory_logs_of_each_item(request: pytest.FixtureRequest) -> None:
    """Give every item a log if logs are stored, even if its test does not use the fixture."""
    if request.config.getoption("--factory-logs"):
        request.getfixturevalue("factory_logs")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Fail a test whose measurements did not all pass."""
    yield
    log = item.stash.get(_LOG, None)
    failed = [] if log is None else log.failed()
    if failed:
        pytest.fail(f"measurements did not pass: {'; '.join(failed)}", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Fail an item if a measurement of its fixtures' teardown did not pass."""
    log = item.stash.get(_LOG, None)
    reported = [] if log is None else log.failed()
    yield
    failed = [] if log is None else [each for each in log.failed() if each not in reported]
    if failed:
        pytest.fail(f"measurements did not pass: {'; '.join(failed)}", pytrace=False)


class LogRecorder:
    """Stores the log of each item of this process."""

    def __init__(self, config: pytest.Config) -> None:
        from factory_logs.client import Client, ClientError

        self._config = config
        self._is_xdist_worker = hasattr(config, "workerinput")
        self._app = str(config.getini("factory_logs_app") or config.rootpath.name)
        self._tags = _tags(config.getoption("--factory-logs-tag"))
        self._stored = 0
        self._not_stored = 0
        self._reports: dict[str, list[pytest.TestReport]] = {}
        try:
            self._client = Client.from_environment()
        except (ValueError, ClientError) as error:
            raise pytest.UsageError(f"--factory-logs: {error}") from None

    def pytest_report_header(self) -> str:
        return f"{NAME}: a log for each test, app_name {self._app}/..., spool {self._client.folder}"

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Store the log of an item that Ctrl-C or `pytest.exit` interrupts."""
        self._reports[item.nodeid] = []
        try:
            return (yield)
        except (KeyboardInterrupt, pytest.exit.Exception):
            reports = self._reports.pop(item.nodeid, None)
            if reports is not None:
                try:
                    self._store(item, reports, is_interrupted=True)
                except Exception as error:  # noqa: BLE001 - pytest shows the reason
                    self._not_stored += 1
                    pytest.exit(_not_stored(item, error))
            raise

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Store the item's log after its teardown, before pytest shows the end of the item or begins the next one."""
        report = yield
        reports = self._reports.setdefault(item.nodeid, [])
        reports.append(report)
        if report.when == "teardown":
            del self._reports[item.nodeid]
            try:
                self._store(item, reports)
            except Exception as error:  # noqa: BLE001 - no test may pass without its log
                self._not_stored += 1
                report.outcome = "failed"
                report.longrepr = _not_stored(item, error)
            if _LOG in item.stash:  # a plugin may run the item again
                del item.stash[_LOG]
        return report

    def _store(self, item: pytest.Item, reports: list[pytest.TestReport], *, is_interrupted: bool = False) -> None:
        """Put the log into the spool, flushed to the disk. Raises ClientError."""
        from factory_logs.client.measurements import path_part, storable_text, storable_value

        log = item.stash.get(_LOG, None) or ItemLog(product_imei=self._config.getoption("--factory-logs-imei"))
        passed, outcome = _outcome(reports)
        if is_interrupted and passed is not False:
            passed, outcome = None, "interrupted"
        fields = {path_part(name): storable_value(value) for name, value in log.fields.items()} | log.measurements
        fields["outcome"] = outcome
        if not is_interrupted:
            fields["duration_seconds"] = round(sum(report.duration for report in reports), 6)
        if passed is not None:
            fields["passed"] = passed
        errors = {str(one.when): storable_text(_message(one)) for one in reports if one.failed or one.skipped}
        if errors:
            fields["errors"] = errors
        about = {"hostname": socket.gethostname(), "suite": self._app, "test": item.nodeid, **self._tags, **log.tags}
        self._client.send(
            _app_name(self._app, item.nodeid),
            product_imei=log.product_imei,
            repair_id=log.repair_id,
            tags={path_part(name): storable_value(value) for name, value in about.items()},
            fields=fields,
        )
        self._stored += 1

    def pytest_sessionfinish(self) -> None:
        """Wait while a working link delivers the logs. The next client sends the logs that stay in the spool."""
        if self._is_xdist_worker:
            self._config.workeroutput[WORKER_OUTPUT] = self._stored, self._not_stored  # type: ignore[attr-defined]
        self._client.flush(self._client.settings.exit_seconds if self._client.status().trouble is None else 0)
        self._status = self._client.status()
        self._client.close()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Add the counts of a process of pytest-xdist."""
        stored, not_stored = getattr(node, "workeroutput", {}).get(WORKER_OUTPUT, (0, 0))
        self._stored += stored
        self._not_stored += not_stored

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        totals, trouble = self._status.totals, self._status.trouble
        parts = [f"{self._stored} {'log' if self._stored == 1 else 'logs'} stored on this device"]
        if self._not_stored:
            parts.append(f"{self._not_stored} NOT STORED")
        if totals.pending:
            parts.append(f"{totals.pending} in the spool wait for the server" + (f" ({trouble})" if trouble else ""))
        else:
            parts.append("all delivered")
        if totals.rejected:
            parts.append(f"{totals.rejected} rejected by the server: see `factory-logs spool show`")
        bad = self._not_stored or totals.rejected
        terminalreporter.write_line(f"{NAME}: {', '.join(parts)}", red=bool(bad), green=not bad)


def _not_stored(item: pytest.Item, error: Exception) -> str:
    return f"{NAME}: the log of {item.nodeid} is not stored: {error}"


def _tags(pairs: list[str]) -> dict[str, str]:
    """Return `NAME=VALUE` pairs as tags. Raises UsageError."""
    for pair in pairs:
        if not pair.partition("=")[0] or "=" not in pair:
            raise pytest.UsageError(f"--factory-logs-tag {pair!r} is not like NAME=VALUE")
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def _app_name(app: str, nodeid: str) -> str:
    """Return the name of the test step. A name that is too long is truncated and ends with a hash of the whole name."""
    name = f"{app}/{nodeid}".encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    if len(name) <= LONGEST_APP_NAME:
        return name
    return f"{name[: LONGEST_APP_NAME - 17]}-{sha256(name.encode()).hexdigest()[:16]}"


def _outcome(reports: list[pytest.TestReport]) -> tuple[bool | None, str]:
    """Return the verdict and the outcome in pytest's words. A skipped or expectedly failed item has no verdict."""
    if any(report.failed for report in reports):
        return False, "failed" if any(report.failed and report.when == "call" for report in reports) else "error"
    if any(hasattr(report, "wasxfail") for report in reports):
        return (None, "xfailed") if any(report.skipped for report in reports) else (True, "xpassed")
    if any(report.skipped for report in reports):
        return None, "skipped"
    return True, "passed"


def _message(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        return f"{Path(crash.path).name}:{crash.lineno}: {crash.message}"
    if isinstance(report.longrepr, tuple):  # the path, line and reason of a skipped item
        return str(report.longrepr[2])
    return str(report.longrepr)
