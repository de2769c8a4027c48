"""Check a SELECT statement by InfluxDB's rules, without reading data. The error messages are InfluxDB's."""

from dataclasses import dataclass, field, replace
from zoneinfo import ZoneInfo

from factory_logs.influxql.ast import (
    Binary,
    Call,
    Distinct,
    Duration,
    Expression,
    Fill,
    Literal,
    Measurement,
    Paren,
    Reference,
    Regex,
    Select,
    Source,
    Time,
    Wildcard,
)
from factory_logs.influxql.constants import (
    Context,
    TimeSpan,
    go_type,
    is_time_text,
    reduced,
    split_time,
)
from factory_logs.influxql.errors import InfluxqlError
from factory_logs.influxql.lexer import format_duration
from factory_logs.influxql.math_functions import MATH_FUNCTIONS, OF_TWO_ARGUMENTS
from factory_logs.influxql.text import format_expression

SELECTORS = frozenset({"first", "last", "min", "max", "percentile", "top", "bottom"})
"""Functions that choose points. A statement can also return the times and other fields of the chosen points."""
SIMPLE_SELECTORS = frozenset({"first", "last", "min", "max"})
AGGREGATES = frozenset({"count", "sum", "mean", "median", "mode", "stddev", "spread"})
RATES = frozenset({"derivative", "non_negative_derivative"})
DIFFERENCES = frozenset({"difference", "non_negative_difference"})
TRANSFORMATIONS = RATES | DIFFERENCES | {"cumulative_sum", "moving_average", "elapsed"}
"""Functions whose argument is a field or an aggregate with GROUP BY time."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A valid SELECT statement, with its constants computed.

    The fields of `select` do not include `time`. `sources` contains measurements and checked subqueries. `interval` is
    0 without GROUP BY time.
    """

    select: Select
    sources: tuple["Measurement | Checked", ...]
    condition: Expression | None
    span: TimeSpan
    interval: int
    offset: int
    time_name: str


def check(select: Select, context: Context) -> Checked:
    """Check a statement, and return it with its constants computed.

    Raises InfluxqlError if the statement is invalid.
    """
    return _Check(select, context, None).checked()


@dataclass(slots=True)
class _Found:
    """The parts found in the fields of a statement."""

    calls: list[Call] = field(default_factory=list)
    only_selectors: bool = True
    has_distinct: bool = False
    has_references: bool = False
    top_or_bottom: str = ""


class _Check:
    def __init__(self, select: Select, context: Context, parent: "_Check | None") -> None:
        self._select = select
        self.context: Context = Context(context.now, _zone(select))
        self._found = _Found()
        self._interval, self._offset = 0, 0
        self._inherits_interval = False
        self._condition, self._span = split_time(select.condition, self.context)
        if self._condition is not None:
            _check_condition(self._condition)
        dimensions = tuple(self._dimension(each) for each in select.dimensions)
        self._select = replace(select, dimensions=dimensions)
        if parent is not None:
            self._inherit(parent)

    def _inherit(self, parent: "_Check") -> None:
        if self._select.is_sorted and self._select.descending != parent._select.descending:
            raise InfluxqlError("subqueries must be ordered in the same direction as the query itself")
        if parent._interval and not self._interval:
            self._interval, self._offset, self._inherits_interval = parent._interval, parent._offset, True

    def checked(self) -> Checked:
        time_name, fields = "time", []
        for each in self._select.fields:
            if isinstance(each.expression, Reference) and each.expression.name == "time":
                time_name = each.alias or time_name
                continue
            checked = replace(each, expression=reduced(each.expression))
            self._expression(checked.expression, with_wildcard=True)
            fields.append(replace(checked, expression=_without_distinct(checked.expression)))
        self._check_fields(len(fields))
        sources = tuple(self._source(each) for each in self._select.sources)
        interval, offset = (0, 0) if self._inherits_interval else (self._interval, self._offset)
        select = replace(self._select, fields=tuple(fields))
        return Checked(select, sources, self._condition, self._span, interval, offset, time_name)

    def _source(self, source: Source) -> "Measurement | Checked":
        if isinstance(source, Measurement):
            return source
        return _Check(source, self.context, self).checked()

    # GROUP BY

    def _dimension(self, dimension: Expression) -> Expression:
        expression = reduced(dimension)
        match expression:
            case Reference(name):
                if name.lower() == "time":
                    raise InfluxqlError("time() is a function and expects at least one argument")
            case Call("time", arguments):
                self._time_dimension(arguments)
            case Call():
                raise InfluxqlError("only time() calls allowed in dimensions")
            case Wildcard() | Regex():
                pass
            case _:
                raise InfluxqlError("only time and tag dimensions allowed")
        return expression

    def _time_dimension(self, arguments: tuple[Expression, ...]) -> None:
        if len(arguments) not in (1, 2):
            raise InfluxqlError("time dimension expected 1 or 2 arguments")
        length = arguments[0]
        if not isinstance(length, Duration):
            raise InfluxqlError("time dimension must have duration argument")
        if self._interval:
            raise InfluxqlError("multiple time dimensions not allowed")
        self._interval = max(0, length.nanoseconds)
        if len(arguments) == 2 and self._interval:
            self._offset = self._time_offset(arguments[1])

    def _time_offset(self, offset: Expression) -> int:
        match offset:
            case Duration(nanoseconds):
                magnitude = abs(nanoseconds) % self._interval
                return -magnitude if nanoseconds < 0 else magnitude
            case Call("now", ()):
                return self.context.now % self._interval
            case Call("now"):
                raise InfluxqlError("time dimension offset now() function requires no arguments")
            case Call():
                raise InfluxqlError("time dimension offset function must be now()")
            case Literal(str() as text) if is_time_text(text):
                raise InfluxqlError(f"invalid time dimension offset: {format_expression(offset)}")
        raise InfluxqlError("time dimension offset must be duration or now()")

    # Fields

    def _expression(self, expression: Expression, *, with_wildcard: bool) -> None:
        match expression:
            case Reference():
                self._found.has_references = True
            case Wildcard() | Regex():
                if not with_wildcard:
                    word = "wildcard" if isinstance(expression, Wildcard) else "regex"
                    raise InfluxqlError(f"unable to use {word} in a binary expression")
                self._found.has_references = True
            case Call(name, arguments) if name in MATH_FUNCTIONS:
                self._mathematics(name, arguments, with_wildcard=with_wildcard)
            case Call():
                self._call(expression, with_wildcard=with_wildcard)
            case Distinct(name):
                self._found.calls.append(Call("distinct", (Reference(name),)))
                self._distinct((Reference(name),), is_nested=False)
            case Binary(_, left, right):
                self._binary(left, right)
            case Paren(inner):
                self._expression(inner, with_wildcard=with_wildcard)
            case _:
                raise InfluxqlError("field must contain at least one variable")

    def _binary(self, left: Expression, right: Expression) -> None:
        sides = [side for side in (left, right) if not isinstance(side, Literal | Duration | Time)]
        if not sides:
            raise InfluxqlError("cannot perform a binary expression on two literals")
        for side in sides:
            self._expression(side, with_wildcard=False)

    def _mathematics(self, name: str, arguments: tuple[Expression, ...], *, with_wildcard: bool) -> None:
        _check_count(name, arguments)
        for each in arguments:
            if not isinstance(each, Literal | Duration | Time):
                self._expression(each, with_wildcard=with_wildcard)

    def _call(self, call: Call, *, with_wildcard: bool) -> None:
        found, name, arguments = self._found, call.name, call.arguments
        found.calls.append(call)
        if name == "distinct":
            self._distinct(arguments, is_nested=False)
        elif name in ("top", "bottom"):
            self._top_or_bottom(call)
        elif name == "percentile":
            _expect_count(name, arguments, 2)
            if not _is_number(arguments[1]):
                raise InfluxqlError("expected float argument in percentile()")
            self._symbol(name, arguments[0], with_wildcard=with_wildcard)
        elif name in TRANSFORMATIONS:
            self._transformation(call, with_wildcard=with_wildcard)
        elif name == "integral":
            _check_unit(name, arguments, "second argument must be a duration")
            found.only_selectors = False
            self._symbol(name, arguments[0], with_wildcard=with_wildcard)
        else:
            self._function(call, with_wildcard=with_wildcard)

    def _function(self, call: Call, *, with_wildcard: bool) -> None:
        name, arguments = call.name, call.arguments
        if name in AGGREGATES:
            self._found.only_selectors = False
        elif name not in SIMPLE_SELECTORS:
            raise InfluxqlError(f"undefined function {name}()")
        _expect_count(name, arguments, 1)
        match arguments[0]:
            case Call("distinct", inner) if name == "count":
                self._distinct(inner, is_nested=True)
            case Distinct(inner_name) if name == "count":
                self._distinct((Reference(inner_name),), is_nested=True)
            case argument:
                self._symbol(name, argument, with_wildcard=with_wildcard)

    def _symbol(self, name: str, argument: Expression, *, with_wildcard: bool) -> None:
        match argument:
            case Reference():
                return
            case Wildcard() | Regex():
                if not with_wildcard:
                    word = "wildcard" if isinstance(argument, Wildcard) else "regex field"
                    raise InfluxqlError(f"unsupported expression with {word}: {name}()")
                self._found.only_selectors = False
            case _:
                raise InfluxqlError(f"expected field argument in {name}()")

    def _distinct(self, arguments: tuple[Expression, ...], *, is_nested: bool) -> None:
        if not arguments:
            raise InfluxqlError("distinct function requires at least one argument")
        if len(arguments) != 1:
            raise InfluxqlError("distinct function can only have one argument")
        if not isinstance(arguments[0], Reference):
            raise InfluxqlError("expected field argument in distinct()")
        self._found.has_distinct = self._found.has_distinct or not is_nested
        self._found.only_selectors = False

    def _transformation(self, call: Call, *, with_wildcard: bool) -> None:
        name, arguments = call.name, call.arguments
        if name in RATES or name == "elapsed":
            _check_unit(name, arguments, f"second argument to {name} must be a duration, got")
        elif name == "moving_average":
            _expect_count(name, arguments, 2)
            _check_moving_window(arguments[1])
        elif len(arguments) != 1:
            raise InfluxqlError(f"invalid number of arguments for {name}, expected 1, got {len(arguments)}")
        self._found.only_selectors = False
        argument = arguments[0]
        if isinstance(argument, Call | Distinct):
            if not self._interval:
                raise InfluxqlError(f"{name} aggregate requires a GROUP BY interval")
            self._nested(argument, with_wildcard=with_wildcard)
            return
        if self._interval and not self._inherits_interval:
            raise InfluxqlError(f"aggregate function required inside the call to {name}")
        self._symbol(name, argument, with_wildcard=with_wildcard)

    def _nested(self, call: Call | Distinct, *, with_wildcard: bool) -> None:
        match call:
            case Distinct(name):
                self._distinct((Reference(name),), is_nested=True)
            case Call("distinct", arguments):
                self._distinct(arguments, is_nested=True)
            case _:
                self._expression(call, with_wildcard=with_wildcard)

    def _top_or_bottom(self, call: Call) -> None:
        name, arguments, found = call.name, call.arguments, self._found
        if found.top_or_bottom:
            raise InfluxqlError(f"selector function {found.top_or_bottom}() cannot be combined with other functions")
        if len(arguments) < 2:
            raise InfluxqlError(f"invalid number of arguments for {name}, expected at least 2, got {len(arguments)}")
        limit = arguments[-1]
        if not _is_integer(limit):
            raise InfluxqlError(f"expected integer as last argument in {name}(), found {format_expression(limit)}")
        self._check_top_limit(name, int(limit.value))  # type: ignore[union-attr, arg-type]
        if not isinstance(arguments[0], Reference):
            raise InfluxqlError(
                f"expected first argument to be a field in {name}(), found {format_expression(arguments[0])}"
            )
        for each in arguments[1:-1]:
            if not isinstance(each, Reference):
                raise InfluxqlError(f"only fields or tags are allowed in {name}(), found {format_expression(each)}")
            found.has_references = True
        found.top_or_bottom = name

    def _check_top_limit(self, name: str, limit: int) -> None:
        if limit <= 0:
            raise InfluxqlError(f"limit ({limit}) in {name} function must be at least 1")
        if 0 < self._select.limit < limit:
            raise InfluxqlError(
                f"limit ({limit}) in {name} function can not be larger than the LIMIT ({self._select.limit}) in the "
                "select statement"
            )

    def _check_fields(self, count: int) -> None:
        found = self._found
        if not count:
            raise InfluxqlError("at least 1 non-time field must be queried")
        if len(found.calls) > 1 and found.top_or_bottom:
            raise InfluxqlError(f"selector function {found.top_or_bottom}() cannot be combined with other functions")
        if not found.calls:
            if self._select.fill in (Fill.NONE, Fill.LINEAR):
                raise InfluxqlError(f"fill({self._select.fill.value}) must be used with a function")
            if self._interval and not self._inherits_interval:
                raise InfluxqlError("GROUP BY requires at least one aggregate function")
        if found.has_distinct and (len(found.calls) != 1 or found.has_references):
            raise InfluxqlError("aggregate function distinct() cannot be combined with other functions or fields")
        if found.has_references:
            if not found.only_selectors:
                raise InfluxqlError("mixing aggregate and non-aggregate queries is not supported")
            if len(found.calls) > 1:
                raise InfluxqlError("mixing multiple selector functions with tags or fields is not supported")


def _zone(select: Select) -> ZoneInfo | None:
    return None if select.zone is None else ZoneInfo(select.zone)


def _without_distinct(expression: Expression) -> Expression:
    """Return the expression with each `DISTINCT name` replaced by the call distinct(name)."""
    match expression:
        case Distinct(name):
            return Call("distinct", (Reference(name),))
        case Call(name, arguments):
            return Call(name, tuple(map(_without_distinct, arguments)))
        case Binary(operator, left, right):
            return Binary(operator, _without_distinct(left), _without_distinct(right))
        case Paren(inner):
            return Paren(_without_distinct(inner))
    return expression


def _is_integer(expression: Expression) -> bool:
    return isinstance(expression, Literal) and type(expression.value) is int


def _is_number(expression: Expression) -> bool:
    return isinstance(expression, Literal) and type(expression.value) in (int, float)


def _expect_count(name: str, arguments: tuple[Expression, ...], count: int) -> None:
    if len(arguments) != count:
        raise InfluxqlError(f"invalid number of arguments for {name}, expected {count}, got {len(arguments)}")


def _check_count(name: str, arguments: tuple[Expression, ...]) -> None:
    _expect_count(name, arguments, 2 if name in OF_TWO_ARGUMENTS else 1)


def _check_unit(name: str, arguments: tuple[Expression, ...], message: str) -> None:
    if len(arguments) not in (1, 2):
        raise InfluxqlError(
            f"invalid number of arguments for {name}, expected at least 1 but no more than 2, got {len(arguments)}"
        )
    if len(arguments) == 1:
        return
    unit = arguments[1]
    if not isinstance(unit, Duration):
        raise InfluxqlError(f"{message} {go_type(unit)}" if message.endswith("got") else message)
    if unit.nanoseconds <= 0:
        raise InfluxqlError(f"duration argument must be positive, got {_shown_duration(unit.nanoseconds)}")


def _shown_duration(nanoseconds: int) -> str:
    return f"-{format_duration(-nanoseconds)}" if nanoseconds < 0 else format_duration(nanoseconds)


def _check_moving_window(window: Expression) -> None:
    if not _is_integer(window):
        raise InfluxqlError(f"second argument for moving_average must be an integer, got {go_type(window)}")
    length = window.value  # type: ignore[union-attr]
    if length <= 1:  # type: ignore[operator]
        raise InfluxqlError(f"moving_average window must be greater than 1, got {length}")


def _check_condition(condition: Expression) -> None:
    match condition:
        case Binary(_, left, right):
            _check_condition(left)
            _check_condition(right)
        case Call(name, arguments):
            if name not in MATH_FUNCTIONS:
                raise InfluxqlError(f"invalid function call in condition: {format_expression(condition)}")
            _check_count(name, arguments)
            for each in arguments:
                _check_condition(each)
