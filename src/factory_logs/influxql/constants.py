"""Compute the constant parts of a query: `now() - 1h`, `2 * 3`, `time >= '2024-01-31'`."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from factory_logs.influxql.ast import Binary, Call, Duration, Expression, Literal, Paren, Reference, Regex, Time
from factory_logs.influxql.errors import InfluxqlError
from factory_logs.influxql.evaluation import COMPARISONS, apply, quotient, wrapped
from factory_logs.influxql.math_functions import MATH_FUNCTIONS, call
from factory_logs.influxql.text import format_expression

EARLIEST, LATEST = -(2**63) + 2, 2**63 - 2
"""The range of times in InfluxDB, in nanoseconds: 1677-09-21 to 2262-04-11."""

_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})", re.ASCII)
_DATE_TIME = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})(?: (\d{1,2}):(\d{2}):(\d{2})(?:\.(\d+))?|T(\d{2}):(\d{2}):(\d{2})(?:\.(\d+))?"
    r"(Z|[+-]\d{2}:\d{2}))",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SWAPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_GO_TYPES: tuple[tuple[type, str], ...] = (
    (Reference, "VarRef"), (Call, "Call"), (Binary, "BinaryExpr"), (Paren, "ParenExpr"), (Regex, "RegexLiteral"),
    (Duration, "DurationLiteral"), (Time, "TimeLiteral"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Context:
    """The current time in nanoseconds and the time zone. The constants of a query depend on both."""

    now: int
    zone: ZoneInfo | None = None


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """The times from `first` to `last`, both included, in nanoseconds. None means no bound."""

    first: int | None = None
    last: int | None = None

    def within(self, other: "TimeSpan") -> "TimeSpan":
        """Return the times that both spans contain."""
        firsts = [each for each in (self.first, other.first) if each is not None]
        lasts = [each for each in (self.last, other.last) if each is not None]
        return TimeSpan(max(firsts, default=None), min(lasts, default=None))


def go_type(expression: Expression) -> str:
    """Return InfluxDB's name for the type of an expression, as its errors show it."""
    match expression:
        case Literal(bool()):
            return "*influxql.BooleanLiteral"
        case Literal(int()):
            return "*influxql.IntegerLiteral"
        case Literal(float()):
            return "*influxql.NumberLiteral"
        case Literal(str()):
            return "*influxql.StringLiteral"
    name = next((name for kind, name in _GO_TYPES if isinstance(expression, kind)), "NilLiteral")
    return f"*influxql.{name}"


def is_time_text(text: str) -> bool:
    """Return whether a string begins like a date, so that InfluxDB interprets it as a time."""
    return _DATE.match(text) is not None and "\n" not in text


def parse_time(text: str, zone: ZoneInfo | None) -> int:
    """Return the nanoseconds of a date, or of a date and time. Raises InfluxqlError."""
    try:
        return _parsed_time(text, zone)
    except (ValueError, OverflowError):
        raise InfluxqlError("invalid timestamp string") from None


def _parsed_time(text: str, zone: ZoneInfo | None) -> int:
    date = _DATE.fullmatch(text)
    if date is not None:
        return _nanoseconds(_as_utc(_datetime(*date.groups()), zone), "")
    found = _DATE_TIME.fullmatch(text)
    if found is None:
        raise ValueError
    if found[12] is None:
        return _nanoseconds(_as_utc(_datetime(*found.group(1, 2, 3, 4, 5, 6)), zone), found[7])
    return _nanoseconds(_datetime(*found.group(1, 2, 3, 8, 9, 10)) - _offset(found[12]), found[11])


def _datetime(year: str, month: str, day: str, hour: str = "0", minute: str = "0", second: str = "0") -> datetime:
    return datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=UTC)


def _as_utc(local: datetime, zone: ZoneInfo | None) -> datetime:
    """Return a local time as UTC. Of a repeated or skipped hour, the result is that of Go's time.Date."""
    moment = local
    for _ in range(2 if zone else 0):
        moment = local - (moment.astimezone(zone).utcoffset() or timedelta(0))
    return moment


def _offset(text: str) -> timedelta:
    if text == "Z":
        return timedelta(0)
    length = timedelta(hours=int(text[1:3]), minutes=int(text[4:6]))
    return -length if text[0] == "-" else length


def _nanoseconds(moment: datetime, fraction: str | None) -> int:
    return (moment - _EPOCH) // timedelta(seconds=1) * 1_000_000_000 + int((fraction or "0").ljust(9, "0")[:9])


def reduced(expression: Expression, context: Context | None = None) -> Expression:
    """Return the expression with its constant parts computed. Without a context, `now()` is left unchanged."""
    found = _reduced(expression, context)
    return found.expression if isinstance(found, Paren) else found


def _reduced(expression: Expression, context: Context | None) -> Expression:
    match expression:
        case Binary(operator, left, right):
            return _binary(operator, _reduced(left, context), _reduced(right, context), context)
        case Paren(inner):
            found = _reduced(inner, context)
            return Paren(found) if isinstance(found, Binary) else found
        case Call("now", ()) if context is not None:
            return Time(context.now)
        case Call(name, arguments):
            computed = tuple(_reduced(each, context) for each in arguments)
            if name in MATH_FUNCTIONS and computed and all(isinstance(each, Literal) for each in computed):
                return Literal(call(name, [each.value for each in computed if isinstance(each, Literal)]))
            return Call(name, computed)
    return expression


def _binary(operator: str, left: Expression, right: Expression, context: Context | None) -> Expression:
    if operator in ("AND", "OR"):
        decisive, neutral = Literal(operator == "OR"), Literal(operator == "AND")
        if _is(left, decisive) or _is(right, decisive):
            return decisive
        if _is(left, neutral):
            return right
        if _is(right, neutral):
            return left
    zone = None if context is None else context.zone
    found = _computed(operator, left, right, zone)
    return Binary(operator, left, right) if found is None else found


def _is(expression: Expression, literal: Literal) -> bool:
    return isinstance(expression, Literal) and expression.value is literal.value


def _computed(operator: str, left: Expression, right: Expression, zone: ZoneInfo | None) -> Expression | None:
    """Return the value of an operation on two constants, or None if the operation has no value."""
    match left, right:
        case (Literal(str()), Literal(str())) if operator in ("=", "!=", "+"):
            return _texts(operator, left, right, zone)
        case (Literal(bool()), Literal(bool())):
            value = apply(operator, left.value, right.value)
            return None if value is None else Literal(value)
        case (Literal(int() | float()), Literal(int() | float())) if not _has_boolean(left, right):
            value = apply(operator, left.value, right.value)
            return None if value is None else Literal(value)
        case (Duration(), Duration()):
            return _durations(operator, left.nanoseconds, right.nanoseconds)
        case (Duration(length), Literal(int() | float() as factor)) if not isinstance(factor, bool):
            return _scaled(operator, length, factor)
        case (Duration(length), Time() | Literal(str())) if operator == "+":
            moment = _moment(right, zone)
            return None if moment is None else Time(moment + length)
        case (Literal(int() as moment), Duration(length)) if operator in "+-" and not isinstance(moment, bool):
            return Time(moment + length if operator == "+" else moment - length)
        case (Literal(int() as length), Time() | Literal(str())) if operator == "+" and not isinstance(length, bool):
            moment = _moment(right, zone)
            return None if moment is None else Time(moment + length)
        case (Time() | Literal(str()), _):
            return _times(operator, left, right, zone)
    return None


def _has_boolean(*literals: Literal) -> bool:
    return any(isinstance(literal.value, bool) for literal in literals)


def _texts(operator: str, left: Literal, right: Literal, zone: ZoneInfo | None) -> Expression:
    texts = str(left.value), str(right.value)
    if operator == "+":
        return Literal("".join(texts))
    if all(map(is_time_text, texts)):
        moments = _moment(left, zone), _moment(right, zone)
        if None not in moments:
            return Literal((moments[0] == moments[1]) is (operator == "="))
    return Literal((texts[0] == texts[1]) is (operator == "="))


def _durations(operator: str, left: int, right: int) -> Expression | None:
    match operator:
        case "+" | "-":
            return Duration(wrapped(left + right if operator == "+" else left - right))
        case _ if operator in COMPARISONS:
            return Literal(apply(operator, left, right))
    return None


def _scaled(operator: str, length: int, factor: float) -> Expression | None:
    whole = math.trunc(factor) if math.isfinite(factor) else 0
    match operator:
        case "*":
            return Duration(wrapped(length * whole))
        case "/":
            return Duration(wrapped(quotient(length, whole)) if whole else 0)
    return None


def _times(operator: str, left: Expression, right: Expression, zone: ZoneInfo | None) -> Expression | None:
    moment = _moment(left, zone)
    if moment is None:
        return None
    match right:
        case Duration(length) | Literal(int() as length) if operator in "+-" and not isinstance(length, bool):
            return Time(moment + length if operator == "+" else moment - length)
        case Time() | Literal(str()):
            other = _moment(right, zone)
            if other is None:
                return None
            if operator == "-":
                return Duration(moment - other)
            return Literal(apply(operator, moment, other)) if operator in COMPARISONS else None
    return None


def _moment(expression: Expression, zone: ZoneInfo | None) -> int | None:
    match expression:
        case Time(nanoseconds):
            return nanoseconds
        case Literal(str() as text):
            try:
                return parse_time(text, zone)
            except InfluxqlError:
                return None
    return None


def split_time(condition: Expression | None, context: Context) -> tuple[Expression | None, TimeSpan]:
    """Split a condition: return the condition without its bounds of time, and the span between these bounds.

    A bound of time applies to the whole query, even if it is an operand of OR. Raises InfluxqlError.
    """
    if condition is None:
        return None, TimeSpan()
    found, span = _split(condition, context)
    if isinstance(found, Paren):
        found = found.expression
    return (None if found is not None and _is(found, Literal(True)) else found), span


def _split(condition: Expression, context: Context) -> tuple[Expression | None, TimeSpan]:
    match condition:
        case Binary(("AND" | "OR") as operator, left, right):
            first, first_span = _split(left, context)
            second, second_span = _split(right, context)
            span = first_span.within(second_span)
            if first is None or second is None:
                return (first if second is None else second), span
            return _binary(operator, first, second, None), span
        case Binary(operator, Reference(name), right) if name.lower() == "time":
            return None, _bound(operator, right, context)
        case Binary(operator, left, Reference(name)) if name.lower() == "time":
            return None, _bound(_SWAPPED.get(operator, operator), left, context)
        case Binary():
            return _reduced(condition, context), TimeSpan()
        case Paren(inner):
            found, span = _split(inner, context)
            return (None if found is None else _reduced(Paren(found), None)), span
        case Literal(bool()):
            return condition, TimeSpan()
    raise InfluxqlError(f"invalid condition expression: {format_expression(condition)}")


def _bound(operator: str, bound: Expression, context: Context) -> TimeSpan:
    if isinstance(bound, Literal) and isinstance(bound.value, str) and is_time_text(bound.value):
        bound = Time(parse_time(bound.value, context.zone))
    bound = reduced(bound, context)
    match bound:
        case Time(moment):
            if not EARLIEST < moment <= LATEST:
                word = "overflows" if moment > LATEST else "underflows"
                raise InfluxqlError(f"time {_shown(moment)} {word} time literal")
        case Duration(moment):
            pass
        case Literal(float() | int() as number) if not isinstance(number, bool):
            moment = math.trunc(number) if math.isfinite(number) else 0
        case _:
            raise InfluxqlError(f"invalid operation: time and {go_type(bound)} are not compatible")
    return _span(operator, moment)


def _shown(moment: int) -> str:
    return format_expression(Time(moment)).strip("'")


_SPANS: dict[str, Callable[[int], TimeSpan]] = {
    ">": lambda moment: TimeSpan(first=moment + 1),
    ">=": lambda moment: TimeSpan(first=moment),
    "<": lambda moment: TimeSpan(last=moment - 1),
    "<=": lambda moment: TimeSpan(last=moment),
    "=": lambda moment: TimeSpan(moment, moment),
}


def _span(operator: str, moment: int) -> TimeSpan:
    if operator not in _SPANS:
        raise InfluxqlError(f"invalid time comparison operator: {operator}")
    return _SPANS[operator](moment)
