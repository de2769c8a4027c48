"""Resolve the names in a checked statement to measurements, fields and tags with their types."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Union

from factory_logs.influxql.ast import (
    NUMBERS,
    Binary,
    Call,
    Expression,
    Literal,
    Measurement,
    Paren,
    Reference,
    Regex,
    SelectField,
    Type,
    Wildcard,
    nodes,
    rewrite,
)
from factory_logs.influxql.checking import Checked
from factory_logs.influxql.errors import InfluxqlError
from factory_logs.influxql.evaluation import apply
from factory_logs.influxql.regexes import matches
from factory_logs.influxql.schema import MeasurementSchema, Schema
from factory_logs.influxql.text import format_expression

FLOAT_FUNCTIONS = frozenset(
    {"mean", "median", "integral", "stddev", "derivative", "non_negative_derivative", "moving_average"}
)
INTEGER_FUNCTIONS = frozenset({"count", "elapsed"})
_OF_STRINGS = frozenset({"count", "first", "last", "distinct", "elapsed", "mode"})
_OF_BOOLEANS = _OF_STRINGS | {"min", "max"}
_ZEROS: dict[Type, bool | int | float | str] = {
    Type.FLOAT: 0.0, Type.INTEGER: 0, Type.UNSIGNED: 0, Type.STRING: "", Type.TAG: "", Type.BOOLEAN: False,
}  # fmt: skip
_OF_VALUES = {float: Type.FLOAT, int: Type.INTEGER, str: Type.STRING, bool: Type.BOOLEAN}


@dataclass(frozen=True, slots=True)
class Resolved:
    """A SELECT statement with all names resolved.

    `fields` contains no wildcards, and each reference in it has a type, or None if the name does not exist.
    `dimensions` contains the tags in GROUP BY. `columns` contains the names of the columns after the time.
    """

    checked: Checked
    fields: tuple[SelectField, ...]
    columns: tuple[str, ...]
    sources: tuple[Union[str, "Resolved"], ...]
    condition: Expression | None
    dimensions: tuple[str, ...]

    @property
    def is_raw(self) -> bool:
        """Whether the rows are points, and not results of functions."""
        return not any(isinstance(node, Call) for each in self.fields for node in nodes(each.expression))


@dataclass(frozen=True, slots=True)
class ResolveLimits:
    """The limits on how far the wildcards of one statement may expand."""

    measurements: int = 1_000
    columns: int = 1_000


def resolve(checked: Checked, schema: Schema, limits: ResolveLimits) -> Resolved:
    """Return the statement with its names resolved. Raises InfluxqlError."""
    return _Resolver(schema, limits).resolved(checked)


def matching_measurements(measurement: Measurement, schema: Schema) -> list[str]:
    """Return the names of the measurements that match a source."""
    if measurement.regex is None:
        return [measurement.name] if measurement.name in schema else []
    return [name for name in schema if matches(measurement.regex.pattern, name)]


class _Resolver:
    def __init__(self, schema: Schema, limits: ResolveLimits) -> None:
        self._schema = schema
        self._limits = limits

    def resolved(self, checked: Checked) -> Resolved:
        sources = self._sources(checked.sources)
        types = _Types(self._schema, sources)
        condition = None if checked.condition is None else rewrite(checked.condition, types.typed)
        fields = [replace(each, expression=rewrite(each.expression, types.typed)) for each in checked.select.fields]
        dimensions = [each for each in checked.select.dimensions if not isinstance(each, Call)]
        expansion = _Expansion(types, dimensions)
        expanded = [each for field in fields for each in expansion.fields(field)]
        if len(expanded) > self._limits.columns:
            raise InfluxqlError(
                f"the statement selects {len(expanded)} columns; the limit is {self._limits.columns}: name the fields"
            )
        for each in expanded:
            types.of(each.expression)
        return Resolved(
            checked, tuple(expanded), column_names(expanded), sources, condition, tuple(expansion.dimensions())
        )

    def _sources(self, sources: Sequence[Measurement | Checked]) -> tuple[str | Resolved, ...]:
        found: list[str | Resolved] = []
        for source in sources:
            if isinstance(source, Checked):
                found.append(self.resolved(source))
            else:
                found += [name for name in matching_measurements(source, self._schema) if name not in found]
        if len(found) > self._limits.measurements:
            raise InfluxqlError(
                f"the statement reads {len(found)} measurements; the limit is {self._limits.measurements}: name them"
            )
        return tuple(found)


def typed_condition(condition: Expression, measurement: MeasurementSchema) -> Expression:
    """Return the condition of a SHOW statement with the types that its names have in one measurement.

    A name that is a field and a tag means the tag, because SHOW statements list what tags have.
    """
    fields = {name: key for name, key in measurement.fields.items() if name not in measurement.tags}
    return rewrite(condition, _Types({"": replace(measurement, fields=fields)}, [""]).typed)


class _Types:
    """The types of the names in the sources."""

    def __init__(self, schema: Schema, sources: Sequence[str | Resolved]) -> None:
        self._schema = schema
        self.sources = sources

    def typed(self, expression: Expression) -> Expression:
        """Return a reference with its type, and any other expression unchanged."""
        if not isinstance(expression, Reference) or expression.type not in (None, Type.FIELD):
            return expression
        kind = self._of_reference(expression.name)
        return expression if kind is Type.TAG and expression.type is Type.FIELD else replace(expression, type=kind)

    def _of_reference(self, name: str) -> Type | None:
        return _preferred(self._in_source(source, name) for source in self.sources)

    def _in_source(self, source: str | Resolved, name: str) -> Type | None:
        if isinstance(source, str):
            return _in_measurement(self._schema[source], name)
        expression = _column_expression(source, name)
        found = None if expression is None else _Types(self._schema, source.sources).of(expression)
        return Type.TAG if found is None and name in source.dimensions else found

    def names(self) -> tuple[dict[str, Type], set[str]]:
        """Return the types of all fields by name, and the names of all tags."""
        fields: dict[str, Type] = {}
        tags: set[str] = set()
        for source in self.sources:
            if isinstance(source, str):
                found = {name: key.type for name, key in self._schema[source].fields.items()}
                tags |= self._schema[source].tags.keys()
            else:
                found = self._columns(source)
                tags |= set(source.dimensions)
            for name, kind in found.items():
                fields[name] = min(kind, fields.get(name, kind), key=lambda each: each.preference)
        return fields, tags

    def _columns(self, source: Resolved) -> dict[str, Type]:
        inner = _Types(self._schema, source.sources)
        found: dict[str, Type] = {}
        for each in source.fields:
            kind = inner.of(each.expression)
            if kind is not None:
                found[field_name(each)] = kind
        return found

    def of(self, expression: Expression) -> Type | None:
        """Return the type of an expression, or None if it is unknown. Raises InfluxqlError if types conflict."""
        match expression:
            case Reference(name, kind):
                return self._of_reference(name) if kind in (None, Type.FIELD) else kind
            case Literal(value):
                return None if value is None else _OF_VALUES[type(value)]
            case Paren(inner):
                return self.of(inner)
            case Call(name, arguments):
                return call_type(name, [self.of(each) for each in arguments])
            case Binary(operator, left, right):
                return self._of_operation(expression, operator, self.of(left), self.of(right))
        return None

    def _of_operation(self, whole: Expression, operator: str, left: Type | None, right: Type | None) -> Type | None:
        if left is None or right is None:
            return left or right
        result = apply(operator, _ZEROS.get(left), _ZEROS.get(right), divide_exactly=False)
        if result is None:
            kinds = f"{left.value} and {right.value}"
            raise InfluxqlError(f"type error: {format_expression(whole)}: incompatible types: {kinds}")
        return _OF_VALUES[type(result)]


def _in_measurement(measurement: MeasurementSchema, name: str) -> Type | None:
    if name in measurement.fields:
        return measurement.fields[name].type
    return Type.TAG if name in measurement.tags else None


def _preferred(types: Iterable[Type | None]) -> Type | None:
    return min((each for each in types if each is not None), key=lambda each: each.preference, default=None)


def _column_expression(source: Resolved, name: str) -> Expression | None:
    """Return the expression that computes a column of a subquery."""
    for each in source.fields:
        if field_name(each) == name:
            return each.expression
        for argument in top_arguments(each):
            if argument.name == name:
                return argument
    return None


def call_type(name: str, arguments: Sequence[Type | None]) -> Type | None:
    """Return the type of a function's result.

    A function of a single value returns the type of its argument, as in InfluxDB 1.6.
    """
    first = arguments[0] if arguments else None
    if name in FLOAT_FUNCTIONS:
        return Type.FLOAT
    return Type.INTEGER if name in INTEGER_FUNCTIONS else first


class _Expansion:
    """Replaces wildcards and regular expressions in fields and dimensions by names."""

    def __init__(self, types: _Types, dimensions: Sequence[Expression]) -> None:
        self._dimensions = dimensions
        fields, tags = types.names()
        self._expands_dimensions = any(isinstance(each, Wildcard | Regex) for each in dimensions)
        self._tags = sorted(tags)
        references = [Reference(name, kind) for name, kind in fields.items()]
        if not self._expands_dimensions and fields:
            grouped = {each.name for each in dimensions if isinstance(each, Reference)}
            references += [Reference(name, Type.TAG) for name in tags - grouped]
        self._references = sorted(references, key=_order)

    def dimensions(self) -> list[str]:
        """Return the names of the tags to group by."""
        found: list[str] = []
        for each in self._dimensions:
            match each:
                case Wildcard():
                    found += self._tags
                case Regex(pattern):
                    found += [name for name in self._tags if matches(pattern, name)]
                case Reference(name):
                    found.append(name)
        return list(dict.fromkeys(found))

    def fields(self, field: SelectField) -> list[SelectField]:
        """Return the fields that replace one field: several if it contains a wildcard or regular expression."""
        match field.expression:
            case Wildcard(kind):
                return [SelectField(each) for each in self._references if _suits(each, kind)]
            case Regex(pattern):
                return [SelectField(each) for each in self._references if matches(pattern, each.name)]
            case Call() as call:
                return self._calls(field, call)
            case Binary() as operation:
                _refuse_wildcards(operation)
        return [field]

    def _calls(self, field: SelectField, call: Call) -> list[SelectField]:
        innermost = call
        while innermost.arguments and isinstance(innermost.arguments[0], Call):
            innermost = innermost.arguments[0]
        argument = innermost.arguments[0] if innermost.arguments else None
        pattern: str | None = None
        match argument:
            case Wildcard(Type.TAG):
                raise InfluxqlError(f"unable to use tag wildcard in {innermost.name}()")
            case Wildcard():
                pass
            case Regex():
                pattern = argument.pattern
            case _:
                return [field]
        name = field_name(field)
        return [
            SelectField(_with_argument(call, each), f"{name}_{each.name}")
            for each in self._references
            if _is_taken(innermost.name, each.type) and (pattern is None or matches(pattern, each.name))
        ]


def _order(reference: Reference) -> tuple[str, int]:
    return reference.name, 0 if reference.type is None else reference.type.preference


def _suits(reference: Reference, kind: Type | None) -> bool:
    return kind is None or (reference.type is Type.TAG) is (kind is Type.TAG)


def _is_taken(function: str, kind: Type | None) -> bool:
    return (
        kind in NUMBERS
        or (kind is Type.STRING and function in _OF_STRINGS)
        or (kind is Type.BOOLEAN and function in _OF_BOOLEANS)
    )


def _with_argument(call: Call, reference: Reference) -> Call:
    first, *others = call.arguments
    inner = _with_argument(first, reference) if isinstance(first, Call) else reference
    return Call(call.name, (inner, *others))


def _refuse_wildcards(operation: Binary) -> None:
    for word, kind in (("wildcard", Wildcard), ("regex field", Regex)):
        if any(isinstance(node, kind) for node in nodes(operation)):
            raise InfluxqlError(f"unsupported expression with {word}: {format_expression(operation)}")


def top_arguments(field: SelectField) -> tuple[Reference, ...]:
    """Return the references in `top(field, reference, ..., n)` that become separate columns."""
    match field.expression:
        case Call("top" | "bottom", arguments):
            return tuple(each for each in arguments[1:-1] if isinstance(each, Reference))
    return ()


def field_name(field: SelectField) -> str:
    """Return the name of a column: its alias, or a name derived from its expression."""
    if field.alias:
        return field.alias
    match field.expression:
        case Call(name) | Reference(name):
            return name
        case Paren(inner):
            return field_name(SelectField(inner))
        case Binary() as operation:
            return "_".join(_names(operation))
    return ""


def _names(expression: Expression) -> list[str]:
    match expression:
        case Reference(name) | Call(name):
            return [name]
        case Binary(_, left, right):
            return _names(left) + _names(right)
        case Paren(inner):
            return _names(inner)
    return []


def column_names(fields: Iterable[SelectField]) -> tuple[str, ...]:
    """Return unique names for the columns: the second `mean` becomes `mean_1`."""
    columns = [column for each in fields for column in (each, *map(SelectField, top_arguments(each)))]
    counts = {each.alias: 1 for each in columns if each.alias}
    names = []
    for each in columns:
        name = field_name(each)
        if not each.alias:
            if name in counts:
                name = _free_name(name, counts)
            counts[name] = counts.get(name, 0) + 1
        names.append(name)
    return tuple(names)


def _free_name(name: str, counts: dict[str, int]) -> str:
    number = counts[name]
    while f"{name}_{number}" in counts:
        number += 1
    counts[name] = number + 1
    return f"{name}_{number}"
