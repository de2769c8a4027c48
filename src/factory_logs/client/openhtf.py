"""An output callback for OpenHTF, which stores each test record on the device's disk before the outcome is shown
(docs/how-to/openhtf.md). Only this module needs the package openhtf.

OpenHTF continues after an error in an output callback, and would show PASS although the record is lost. So if the
record cannot be stored, the callback changes its outcome to ERROR.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from openhtf.core.measurements import Measurement
from openhtf.core.measurements import Outcome as MeasurementOutcome
from openhtf.core.test_record import Outcome, PhaseOutcome, PhaseRecord, TestRecord

from factory_logs.client.client import Client
from factory_logs.client.measurements import (
    add_named,
    is_limit,
    measurement,
    path_part,
    storable_text,
    storable_value,
)

DEFAULT_APP_NAME = "openhtf_test"
"""OpenHTF's own name for tests that have no name."""
NOT_STORED = "FACTORY_LOGS"
"""The code in the outcome details of a record that could not be stored."""
_IMEI_DIGITS = 15
_VERDICTS = {Outcome.PASS: True, Outcome.FAIL: False, Outcome.ERROR: False, Outcome.TIMEOUT: False}
_FAILED = (PhaseOutcome.FAIL, PhaseOutcome.ERROR)
_RESERVED = ("passed", "outcome", "outcome_details", "duration_seconds", "marginal", "phases", "subtests", "diagnoses")


class FactoryLogsOutput:
    """Stores each test record as one log through a client, for `Test.add_output_callbacks`.

    A call returns after the record is flushed to the device's disk. `app_name` is the test's name by default; `tags`
    are added to the tags of each record. Raises ValueError for a client that may lose a stored log, that is, with
    `fsync="normal"` or `when_full="drop_oldest"`.
    """

    def __init__(
        self, client: Client, app_name: str | None = None, *, tags: Mapping[str, object] | None = None
    ) -> None:
        if client.settings.fsync != "full" or client.settings.when_full != "block":
            raise ValueError('a client for OpenHTF needs the settings fsync="full" and when_full="block"')
        self._client = client
        self._app_name = app_name
        self._tags = dict(tags or {})

    def __call__(self, record: TestRecord) -> None:
        """Store the record. Raises InvalidLogError, SpoolError or ClosedError after changing the outcome to ERROR."""
        try:
            self._client.send(**convert_record(record, self._app_name, self._tags))
        except BaseException as error:
            record.outcome = Outcome.ERROR
            record.add_outcome_details(NOT_STORED, f"The test record is not stored on this device: {error}")
            raise


def convert_record(
    record: TestRecord, app_name: str | None = None, tags: Mapping[str, object] | None = None
) -> dict[str, Any]:
    """Return the arguments of Client.send for a test record."""
    unit = record.dut_id
    is_imei = unit is not None and len(unit) == _IMEI_DIGITS and unit.isascii() and unit.isdecimal()
    test_name = str(record.metadata.get("test_name") or DEFAULT_APP_NAME)
    metadata = {
        name: value
        for name, value in record.metadata.items()
        if isinstance(value, str | int | float) and (name != "test_name" or app_name)
    }
    about = {"jig_id": record.station_id, **({} if unit is None or is_imei else {"dut_id": unit}), **metadata}
    return {
        "app_name": app_name or test_name,
        "product_imei": unit if is_imei else None,
        "timestamp": _moment(record.end_time_millis),
        "tags": {path_part(name): storable_value(value) for name, value in {**about, **(tags or {})}.items()},
        "fields": _fields(record),
    }


def _moment(milliseconds: int | None) -> datetime | None:
    return None if not milliseconds else datetime.fromtimestamp(milliseconds / 1000, UTC)


def _fields(record: TestRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if record.outcome in _VERDICTS:
        fields["passed"] = _VERDICTS[record.outcome]
    fields["outcome"] = None if record.outcome is None else record.outcome.name
    fields |= _duration(record.start_time_millis, record.end_time_millis)
    if record.marginal:
        fields["marginal"] = True
    if record.outcome_details:
        fields["outcome_details"] = [
            {"code": storable_value(detail.code), "description": storable_value(detail.description)}
            for detail in record.outcome_details
        ]
    if record.diagnoses:
        fields["diagnoses"] = [
            {"result": storable_text(diagnosis.result.name), "description": storable_value(diagnosis.description)}
            for diagnosis in record.diagnoses
        ]
    if record.subtests:
        fields["subtests"] = {}
        for subtest in record.subtests:
            state = {"outcome": None if subtest.outcome is None else subtest.outcome.name}
            add_named(
                fields["subtests"], subtest.name, state | _duration(subtest.start_time_millis, subtest.end_time_millis)
            )
    fields["phases"] = {}
    for name, runs in _by_name(record.phases).items():
        chosen = _decisive(runs)
        add_named(fields["phases"], name, _phase(chosen, [run for run in runs if run is not chosen]))
        if chosen.measurements:
            part = path_part(name)
            add_named(fields, f"{part}_phase" if part in _RESERVED else part, _measurements(chosen))
    return fields


def _by_name(phases: Iterable[PhaseRecord]) -> dict[str, list[PhaseRecord]]:
    found: dict[str, list[PhaseRecord]] = {}
    for phase in phases:
        found.setdefault(phase.name, []).append(phase)
    return found


def _decisive(runs: list[PhaseRecord]) -> PhaseRecord:
    """Return the run of a phase that decides its verdict: the last failed run, or else the last run that was not
    repeated."""
    failed = [run for run in runs if run.outcome in _FAILED]
    counted = [run for run in runs if run.outcome is not PhaseOutcome.SKIP]
    return (failed or counted or runs)[-1]


def _phase(phase: PhaseRecord, others: list[PhaseRecord]) -> dict[str, Any]:
    """Return the state of a phase. The phase itself counts as failed only if none of its measurements has failed."""
    found = _run(phase)
    if phase.outcome in _FAILED and not any(_has_failed(one, phase) for one in _measured(phase) if not one.allow_fail):
        found["pass"] = False
    error = getattr(phase.result, "phase_result", None)
    if phase.result is not None and phase.result.raised_exception:
        found["error"] = storable_text(
            f"{getattr(error, 'exc_type', type(error)).__name__}: {getattr(error, 'exc_val', error)}"
        )
    if phase.attachments:
        found["attachments"] = {}
        for name, attachment in phase.attachments.items():
            described = {"mimetype": attachment.mimetype, "sha1": attachment.sha1, "size": attachment.size}
            add_named(found["attachments"], name, described)
    if others:
        # Omit the verdict: only the decisive run counts in the list of failures.
        found["other_runs"] = [_run(run) | {"measurements": _measurements(run, verdicts=False)} for run in others]
    return found


def _run(phase: PhaseRecord) -> dict[str, Any]:
    state = {"outcome": None if phase.outcome is None else phase.outcome.name}
    return state | _duration(phase.start_time_millis, phase.end_time_millis)


def _measured(phase: PhaseRecord) -> list[Measurement]:
    return list((phase.measurements or {}).values())


def _measurements(phase: PhaseRecord, *, verdicts: bool = True) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in _measured(phase):
        add_named(found, one.name, _measurement(one, phase, verdicts=verdicts))
    return found


def _measurement(one: Measurement, phase: PhaseRecord, *, verdicts: bool) -> dict[str, Any]:
    passed = True if one.outcome is MeasurementOutcome.PASS else False if _has_failed(one, phase) else None
    lower, upper = _limits(one)
    value = one.measured_value.basetype_value() if one.measured_value.is_value_set else None
    found = measurement(value, passed=passed if verdicts else None, lower=lower, upper=upper, unit=_unit(one.units))
    if not verdicts or one.outcome not in (MeasurementOutcome.PASS, MeasurementOutcome.FAIL):
        found["outcome"] = one.outcome.name
    if one.marginal:
        found["marginal"] = True
    if one.dimensions:
        found["dimensions"] = [
            storable_text(f"{dimension.description} {_unit(dimension.unit) or ''}".strip())
            for dimension in one.dimensions
        ]
    rules = [storable_text(str(validator)) for validator in one.validators if not _is_range(validator)]
    if rules:
        found["validators"] = rules
    return found


def _has_failed(one: Measurement, phase: PhaseRecord) -> bool:
    """Return whether a measurement has failed: by its validators, or because it is missing in a completed phase."""
    if one.outcome is MeasurementOutcome.FAIL:
        return True
    is_missing = one.outcome in (MeasurementOutcome.UNSET, MeasurementOutcome.PARTIALLY_SET)
    return is_missing and phase.outcome is PhaseOutcome.FAIL


def _is_range(validator: object) -> bool:
    return any(is_limit(getattr(validator, name, None)) for name in ("minimum", "maximum"))


def _limits(one: Measurement) -> tuple[Any, Any]:
    """Return the narrowest limits of all validators that are ranges, or None if there is no range."""
    lower = [validator.minimum for validator in one.validators if is_limit(getattr(validator, "minimum", None))]
    upper = [validator.maximum for validator in one.validators if is_limit(getattr(validator, "maximum", None))]
    return max(lower, default=None), min(upper, default=None)


def _unit(unit: Any) -> str | None:
    """Return the symbol of a unit, or its name if it has no symbol; None if it has neither."""
    if unit is None or unit.code is None:
        return None
    return str(unit.suffix or unit.name)


def _duration(start: int | None, end: int | None) -> dict[str, float]:
    return {"duration_seconds": (end - start) / 1000} if start and end else {}
