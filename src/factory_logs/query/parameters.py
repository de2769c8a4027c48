"""Parse the query strings of the calls that aggregate logs: stats (docs/reference/http-api.md#stats), and yield,
failures, distribution and facets (docs/reference/test-results.md).

Each call lists its parameters. Any other parameter is an error, because a misspelt parameter would otherwise be
ignored.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from math import isfinite
from zoneinfo import ZoneInfo

from factory_logs.errors import BadRequestError, FieldError
from factory_logs.query.ast import Field, Kind, Query
from factory_logs.query.fields import Resource, resolve, shown
from factory_logs.query.parser import QueryLimits, parse_query

DURATION_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
LOCAL_UNITS = ("d", "w")
"""Buckets of days and weeks begin at local midnight. Shorter buckets are the same in all time zones."""
DURATION = "([1-9][0-9]{0,5}[smh]|[1-9][0-9]{0,3}d|[1-9][0-9]{0,2}w)"
NUMBER = r"-?[0-9]{1,309}(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,3})?"
ZONE = "[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}"
UTC = "UTC"
PASSED = "fields__passed"
UNIT = "product_imei"
ESCAPE_FORMULAS = "escape_formulas"
NUMBERS = frozenset({Kind.INT, Kind.FLOAT})

YIELD_PARAMETERS = ("q", "bucket", "by", "unit", "passed", "tz")
FAILURES_PARAMETERS = ("q", "passed", "unit", "limit")
DISTRIBUTION_PARAMETERS = ("q", "field", "bins", "by", "lower", "upper")
FACETS_PARAMETERS = ("q", "field", "limit")
DEFAULT_BINS, MAX_BINS = 20, 200
DEFAULT_FAILURES = 100
DEFAULT_FACET_VALUES = 10
STATS_PARAMETERS = ("q", "bucket", "by", "field", "tz")
MEASURES = ("count", "min", "avg", "max", "p50", "p95")

Pairs = Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Bucket:
    """The length of time buckets. They begin at whole multiples of this length since 0001-01-01, a Monday, in the local
    time of `zone`."""

    length: timedelta
    zone: str = UTC


def boolean(text: str | None) -> bool:
    """Return the value of a boolean parameter, by default false. Raises ValueError unless it is true or false."""
    if text not in (None, "true", "false"):
        raise ValueError(f"expected true or false, not {shown(text)}")
    return text == "true"


class Parameters:
    """Parses the parameters of one request, and collects the errors for `check` to raise.

    Each call can respond with CSV, so each accepts `escape_formulas`.
    """

    def __init__(self, pairs: Pairs, known: Sequence[str], resource: Resource) -> None:
        self._resource = resource
        self._errors: list[FieldError] = []
        self._values: defaultdict[str, list[str]] = defaultdict(list)
        for name, value in pairs:
            self._values[name].append(value)
        known = (*known, ESCAPE_FORMULAS)
        for name in self._values:
            if name not in known:
                self.refuse(name[:100], f"unknown parameter; this call takes {', '.join(known)}")
        try:
            boolean(self._one(ESCAPE_FORMULAS))
        except ValueError as error:
            self.refuse(ESCAPE_FORMULAS, str(error))

    def refuse(self, name: str, message: str) -> None:
        """Add an error for a parameter."""
        self._errors.append(FieldError(name, message))

    def check(self) -> None:
        """Raise BadRequestError with the collected errors, if there are any."""
        if self._errors:
            raise BadRequestError("Validation failed", self._errors)

    def query(self, limits: QueryLimits) -> Query:
        """Return `q`, which may contain `filters` only. Raises BadRequestError if it cannot be parsed."""
        query = parse_query(self._one("q"), self._resource, limits)
        if query != Query(filters=query.filters):
            self.refuse("q", "this call accepts only filters; leave out the other members")
        return query

    def bucket(self) -> Bucket | None:
        """Return `bucket` with `tz`, or None if there is no `bucket`."""
        zone, text = self._zone(), self._one("bucket")
        if text is None:
            return None
        if not re.fullmatch(DURATION, text):
            self.refuse("bucket", "expected a duration such as 30s, 15m, 1h, 1d, 2w, at most 9999d")
            return None
        length = timedelta(**{DURATION_UNITS[text[-1]]: int(text[:-1])})
        return Bucket(length, zone if text[-1] in LOCAL_UNITS else UTC)

    def _zone(self) -> str:
        text = self._one("tz")
        if text is None:
            return UTC
        if re.fullmatch(ZONE, text):
            try:
                ZoneInfo(text)
            except (LookupError, OSError, ValueError):
                pass
            else:
                return text
        self.refuse("tz", f"no time zone {shown(text)}; expected an IANA name such as Asia/Shanghai or UTC")
        return UTC

    def fields(self, name: str) -> dict[str, Field]:
        """Return the fields and JSON paths of a repeatable parameter, as a dict by name."""
        found = {}
        for text in self._values[name]:
            field = self._resolved(name, text)
            if field is not None:
                found[text] = field
        return found

    def numbers(self, name: str) -> dict[str, Field]:
        """Return the same as `fields`. The fields must be able to contain numbers."""
        found = self.fields(name)
        for text, field in found.items():
            if not (field.kind in NUMBERS or field.path):
                self.refuse(name, f"{text} is {field.kind.value}; name a number or a JSON path")
        return found

    def limit_names(self, most: int, *names: str) -> None:
        """Raise BadRequestError if these parameters together have more than `most` values."""
        if sum(map(self.given, names)) > most:
            together = " together" if len(names) > 1 else ""
            self.refuse(names[-1], f"at most {most} of {' and '.join(names)}{together}")
            self.check()

    def given(self, name: str) -> int:
        """Return how many times a parameter occurs."""
        return len(self._values[name])

    def passed(self) -> Field:
        """Return the JSON path of the boolean that marks a log as an attempt."""
        text = self._one("passed") or PASSED
        field = self._resolved("passed", text)
        if field is not None and not field.path:
            self.refuse("passed", f"{text} is {field.kind.value}; name a JSON path such as {PASSED}")
        return field or resolve(PASSED, self._resource)

    def unit(self) -> Field:
        """Return the field that identifies a log's unit."""
        return self._resolved("unit", self._one("unit") or UNIT) or resolve(UNIT, self._resource)

    def integer(self, name: str, default: int, most: int) -> int:
        """Return an integer from 1 to `most`, or the default."""
        text = self._one(name)
        if text is None:
            return default
        if re.fullmatch("[0-9]{1,18}", text, re.ASCII) and 1 <= int(text) <= most:
            return int(text)
        self.refuse(name, f"expected an integer from 1 to {most}, not {shown(text)}")
        return default

    def number(self, name: str) -> Decimal | None:
        """Return an exact number in the range of a double, or None if the parameter is missing."""
        text = self._one(name)
        if text is None:
            return None
        if re.fullmatch(NUMBER, text, re.ASCII) and isfinite(float(text)):
            return Decimal(text)
        self.refuse(name, f"expected a number such as 3.2, not {shown(text)}")
        return None

    def _one(self, name: str) -> str | None:
        values = self._values[name]
        if len(values) > 1:
            self.refuse(name, "given more than once")
        return values[-1] if values else None

    def _resolved(self, parameter: str, name: str) -> Field | None:
        try:
            return resolve(name, self._resource)
        except ValueError as error:
            self.refuse(parameter, str(error))
            return None


@dataclass(frozen=True, slots=True)
class StatsQuery:
    """The parameters of stats: the logs of `query.filters` by time bucket (None means one bucket for all time) and the
    fields `by`.

    Each group has its count and the measures of each field in `fields`. `by` and `fields` are dicts by name.
    """

    query: Query
    bucket: Bucket | None
    by: Mapping[str, Field]
    fields: Mapping[str, Field]


def parse_stats(pairs: Pairs, resource: Resource, limits: QueryLimits, max_fields: int) -> StatsQuery:
    """Return the parameters of stats. Raises a BadRequestError that lists every error."""
    parameters = Parameters(pairs, STATS_PARAMETERS, resource)
    query = parameters.query(limits)
    parameters.limit_names(max_fields, "by", "field")
    stats = StatsQuery(query, parameters.bucket(), parameters.fields("by"), parameters.numbers("field"))
    parameters.check()
    return stats


@dataclass(frozen=True, slots=True)
class YieldQuery:
    """The parameters of a yield: attempts and units among the logs of `query.filters`, by time bucket and the fields
    `by`."""

    query: Query
    bucket: Bucket | None
    by: Mapping[str, Field]
    unit: Field
    passed: Field


@dataclass(frozen=True, slots=True)
class FailuresQuery:
    """The parameters of failures: the `limit` most frequent failures among the failed attempts of `query.filters`."""

    query: Query
    unit: Field
    passed: Field
    limit: int


@dataclass(frozen=True, slots=True)
class DistributionQuery:
    """The parameters of a distribution: the numbers at `field` in the logs of `query.filters`, by the fields `by`.

    `lower` and `upper` are the exact limits of a good value.
    """

    query: Query
    field: Field
    bins: int
    by: Mapping[str, Field]
    lower: Decimal | None
    upper: Decimal | None


@dataclass(frozen=True, slots=True)
class FacetsQuery:
    """The parameters of facets: the `limit` most frequent values of each field in `fields` in the logs of
    `query.filters`."""

    query: Query
    fields: Mapping[str, Field]
    limit: int


def parse_yield(pairs: Pairs, resource: Resource, limits: QueryLimits, max_fields: int) -> YieldQuery:
    """Return the parameters of a yield. Like the other functions here, raises a BadRequestError that lists every
    error."""
    parameters = Parameters(pairs, YIELD_PARAMETERS, resource)
    query = parameters.query(limits)
    parameters.limit_names(max_fields, "by")
    yield_query = YieldQuery(
        query, parameters.bucket(), parameters.fields("by"), parameters.unit(), parameters.passed()
    )
    parameters.check()
    return yield_query


def parse_failures(pairs: Pairs, resource: Resource, limits: QueryLimits, max_rows: int) -> FailuresQuery:
    parameters = Parameters(pairs, FAILURES_PARAMETERS, resource)
    limit = parameters.integer("limit", min(DEFAULT_FAILURES, max_rows), max_rows)
    failures_query = FailuresQuery(parameters.query(limits), parameters.unit(), parameters.passed(), limit)
    parameters.check()
    return failures_query


def parse_distribution(pairs: Pairs, resource: Resource, limits: QueryLimits, max_fields: int) -> DistributionQuery:
    parameters = Parameters(pairs, DISTRIBUTION_PARAMETERS, resource)
    query = parameters.query(limits)
    parameters.limit_names(max_fields, "by")
    fields, by = parameters.numbers("field"), parameters.fields("by")
    bins = parameters.integer("bins", DEFAULT_BINS, MAX_BINS)
    lower, upper = parameters.number("lower"), parameters.number("upper")
    if parameters.given("field") != 1:
        parameters.refuse("field", "expected exactly one number or JSON path, such as fields__voltage")
    if lower is not None and upper is not None and lower > upper:
        parameters.refuse("upper", "upper must not be below lower")
    parameters.check()
    return DistributionQuery(query, next(iter(fields.values())), bins, by, lower, upper)


def parse_facets(
    pairs: Pairs, resource: Resource, limits: QueryLimits, max_fields: int, max_values: int
) -> FacetsQuery:
    parameters = Parameters(pairs, FACETS_PARAMETERS, resource)
    query = parameters.query(limits)
    parameters.limit_names(max_fields, "field")
    fields = parameters.fields("field")
    limit = parameters.integer("limit", min(DEFAULT_FACET_VALUES, max_values), max_values)
    if not parameters.given("field"):
        parameters.refuse("field", "expected at least one field or JSON path, such as app_name or tags__jig_id")
    parameters.check()
    return FacetsQuery(query, fields, limit)
