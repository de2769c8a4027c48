"""Compile the condition of WHERE to SQL for the logs of one measurement, with InfluxDB's semantics.

A missing tag is an empty string. A comparison with a missing field matches no log, nor does a comparison of
incompatible types. A condition that is null in SQL matches no log either; this is safe because InfluxQL has no NOT.

Numbers are compared and computed as PostgreSQL's numeric, which neither overflows nor rounds.
"""

import json
import math
import re
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Numeric,
    Text,
    and_,
    case,
    cast,
    false,
    func,
    literal,
    or_,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB

from factory_logs.influxql.ast import (
    Binary,
    Call,
    Duration,
    Expression,
    Literal,
    Paren,
    Reference,
    Regex,
    Time,
    Type,
    Wildcard,
)
from factory_logs.influxql.errors import InfluxqlError
from factory_logs.influxql.evaluation import COMPARISONS
from factory_logs.influxql.regexes import postgresql_pattern
from factory_logs.influxql.schema import (
    JSON_TYPES,
    LOGS,
    MeasurementSchema,
    field_json,
    string_text,
    tag_text,
)
from factory_logs.influxql.text import format_expression

Condition = ColumnElement[bool]
_SWAPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_SQL_OPERATORS = {"!=": "<>"}
_ID = re.compile("0|[1-9][0-9]{0,9}")
_NUMBERS = (Type.FLOAT, Type.INTEGER, Type.UNSIGNED)


def compile_condition(condition: Expression, measurement: MeasurementSchema) -> Condition:
    """Return the condition as SQL. Raises InfluxqlError for expressions that WHERE does not allow."""
    return _Compiler(measurement).condition(condition)


def tag_condition(condition: Expression | None, measurement: MeasurementSchema) -> Expression | None:
    """Return the part of the condition that restricts tags only, or None.

    A log that matches the condition also matches this part.
    """
    match condition:
        case Paren(inner):
            return tag_condition(inner, measurement)
        case Binary("AND", left, right):
            sides = [tag_condition(side, measurement) for side in (left, right)]
            found = [side for side in sides if side is not None]
            return Binary("AND", *found) if len(found) == 2 else next(iter(found), None)
        case Binary("OR", left, right):
            sides = [tag_condition(side, measurement) for side in (left, right)]
            return None if None in sides else Binary("OR", sides[0], sides[1])  # type: ignore[arg-type]
        case Binary(_, Reference() as left, right) if is_tag(left) and not isinstance(right, Reference):
            return condition
    return None


def is_tag(reference: Reference) -> bool:
    """Return whether a name in WHERE is a tag. An unknown name counts as a tag that no log has."""
    return reference.type in (Type.TAG, None)


class _Operand(NamedTuple):
    """A value as SQL; its type is FLOAT, INTEGER, STRING or BOOLEAN."""

    type: Type
    sql: ColumnElement[Any]


class _Compiler:
    def __init__(self, measurement: MeasurementSchema) -> None:
        self._measurement = measurement

    def condition(self, condition: Expression) -> Condition:
        match condition:
            case Paren(inner):
                return self.condition(inner)
            case Literal(bool() as value):
                return true() if value else false()
            case Binary("AND", left, right):
                return and_(self.condition(left), self.condition(right))
            case Binary("OR", left, right):
                return or_(self.condition(left), self.condition(right))
            case Binary(operator, left, right) if operator in COMPARISONS or operator in ("=~", "!~"):
                return self._comparison(condition, operator, left, right)
            case Reference(_, Type.BOOLEAN):
                return self._field(condition, "=", Literal(True))
        raise InfluxqlError(f"invalid expression: {format_expression(condition)}")

    def _comparison(self, whole: Expression, operator: str, left: Expression, right: Expression) -> Condition:
        match left, right:
            case Reference(), Literal() | Regex():
                return self._single(left, operator, right)
            case Literal(), Reference():
                return self._single(right, _SWAPPED.get(operator, operator), left)
            case Paren(), Literal() | Regex() | Paren():
                pass
            case Binary(), Regex():
                return false()
        if isinstance(left, Regex) or isinstance(right, Regex):
            raise InfluxqlError(f"invalid expression: {format_expression(whole)}")
        return _compared(operator, self._operand(left), self._operand(right))

    def _single(self, reference: Reference, operator: str, value: Literal | Regex) -> Condition:
        if is_tag(reference):
            return self._tag(reference.name, operator, value)
        return self._field(reference, operator, value)

    def _tag(self, name: str, operator: str, value: Literal | Regex) -> Condition:
        text = func.coalesce(tag_text(self._measurement, name), "", type_=Text())
        match value:
            case Regex(pattern):
                return text.bool_op("~" if operator == "=~" else "!~")(literal(postgresql_pattern(pattern), Text))
            case Literal(str() as wanted) if operator == "=":
                return self._tag_equals(name, wanted) if wanted else text == literal(wanted, Text)
            case Literal(str() as wanted) if operator == "!=":
                return text != literal(wanted, Text)
        return false()

    def _tag_equals(self, name: str, wanted: str) -> Condition:
        """Return the comparison in a form for which PostgreSQL can use an index."""
        if name not in self._measurement.tags:
            return false()
        if name == "product_imei":
            return LOGS.c.product_imei == literal(wanted, Text)
        if name == "repair_id":
            is_id = _ID.fullmatch(wanted) is not None and int(wanted) < 2**31
            return LOGS.c.repair_id == literal(int(wanted), Integer) if is_id else false()
        return or_(*(_contains(path, wanted) for path in self._measurement.tags[name]))

    def _field(self, reference: Reference, operator: str, value: Literal | Regex) -> Condition:
        found = field_json(self._measurement, reference.name)
        if found is None:
            return false()
        kind = self._measurement.fields[reference.name].type if reference.type is Type.FIELD else reference.type
        match value:
            case Regex(pattern) if kind is Type.STRING:
                matched = string_text(found).bool_op("~" if operator == "=~" else "!~")
                return and_(_is(found, "string"), matched(literal(postgresql_pattern(pattern), Text)))
            case Literal(bool() as truth) if kind is Type.BOOLEAN and operator in ("=", "!="):
                return found == _json("true" if truth is (operator == "=") else "false")
            case Literal(str() as text) if kind is Type.STRING and operator in ("=", "!="):
                same = found == _json(json.dumps(text, ensure_ascii=False))
                return and_(_is(found, "string"), same if operator == "=" else ~same)
            case Literal(int() | float() as number) if kind in _NUMBERS and not isinstance(number, bool):
                return self._number(found, operator, number)
        return false()

    def _number(self, value: ColumnElement[Any], operator: str, number: float) -> Condition:
        compared = value.bool_op(_SQL_OPERATORS.get(operator, operator))(_json(_number_text(number)))
        return and_(_is(value, "number"), compared)

    # Arithmetic

    def _operand(self, expression: Expression) -> _Operand:
        match expression:
            case Paren(inner):
                return self._operand(inner)
            case Reference():
                return self._reference(expression)
            case Literal(bool() as truth):
                return _Operand(Type.BOOLEAN, true() if truth else false())
            case Literal(str() as text):
                return _Operand(Type.STRING, literal(text, Text))
            case Literal(int() | float() as number):
                kind = Type.INTEGER if isinstance(number, int) else Type.FLOAT
                return _Operand(kind, cast(literal(_number_text(number), Text), Numeric))
            case Binary(operator, left, right) if operator in "+-*/%":
                return _computed(operator, self._operand(left), self._operand(right))
            case Binary(("&" | "|" | "^") as operator, left, right):
                return _bitwise(operator, self._operand(left), self._operand(right))
            case Binary(operator, left, right) if operator in COMPARISONS:
                compared = _compared(operator, self._operand(left), self._operand(right))
                return _Operand(Type.BOOLEAN, func.coalesce(compared, false()))
            case Duration() | Time() | Wildcard():
                return _Operand(Type.STRING, cast(literal(None, Text), Text))
            case Call(("abs" | "floor" | "ceil" | "round") as name, (argument,)):
                operand = self._operand(argument)
                return operand if operand.type is Type.INTEGER else _rounded(name, operand)
            case Call(name):
                raise InfluxqlError(f"{name}() is not supported in WHERE: {format_expression(expression)}")
        raise InfluxqlError(f"invalid expression: {format_expression(expression)}")

    def _reference(self, reference: Reference) -> _Operand:
        if is_tag(reference):
            text = func.coalesce(tag_text(self._measurement, reference.name), "", type_=Text())
            return _Operand(Type.STRING, text)
        value = field_json(self._measurement, reference.name)
        if value is None:
            return _Operand(Type.STRING, cast(literal(None, Text), Text))
        kind = self._measurement.fields[reference.name].type if reference.type is Type.FIELD else reference.type
        if kind not in JSON_TYPES:
            return _Operand(Type.STRING, cast(literal(None, Text), Text))
        typed: ColumnElement[Any]
        if kind is Type.STRING:
            typed = string_text(value)
        elif kind is Type.BOOLEAN:
            return _Operand(kind, case((_is(value, "boolean"), value == _json("true"))))
        else:
            typed = cast(value, Numeric)
        return _Operand(kind, case((_is(value, JSON_TYPES[kind]), typed)))


def _is(value: ColumnElement[Any], json_type: str) -> Condition:
    return func.jsonb_typeof(value) == literal(json_type, Text)


def _json(text: str) -> ColumnElement[Any]:
    return cast(literal(text, Text), JSONB)


def _number_text(number: float) -> str:
    if isinstance(number, float) and not math.isfinite(number):
        raise InfluxqlError(f"{number} is not a number that can be compared with")
    return repr(number)


def _contains(path: tuple[str, ...], wanted: str) -> Condition:
    text = json.dumps(wanted, ensure_ascii=False)
    for key in reversed(path):
        text = f"{{{json.dumps(key, ensure_ascii=False)}: {text}}}"
    return LOGS.c.tags.op("@>", is_comparison=True)(_json(text))


def _compared(operator: str, left: _Operand, right: _Operand) -> Condition:
    are_numbers = left.type in _NUMBERS and right.type in _NUMBERS
    if not are_numbers and (left.type is not right.type or operator not in ("=", "!=")):
        return false()
    return left.sql.bool_op(_SQL_OPERATORS.get(operator, operator))(right.sql)


def _computed(operator: str, left: _Operand, right: _Operand) -> _Operand:
    if left.type not in _NUMBERS or right.type not in _NUMBERS:
        return _Operand(Type.FLOAT, cast(literal(None, Text), Numeric))
    are_whole = Type.FLOAT not in (left.type, right.type)
    kind = Type.INTEGER if are_whole else Type.FLOAT
    zero = cast(literal("0", Text), Numeric)
    match operator:
        case "/":
            quotient = left.sql / func.nullif(right.sql, zero)
            quotient = func.trunc(quotient) if are_whole else quotient
            return _Operand(kind, case((right.sql == zero, zero), else_=quotient))
        case "%":
            rest = func.mod(left.sql, func.nullif(right.sql, zero))
            return _Operand(kind, case((right.sql == zero, zero), else_=rest) if are_whole else rest)
    return _Operand(kind, left.sql.op(operator, return_type=Numeric())(right.sql))


def _bitwise(operator: str, left: _Operand, right: _Operand) -> _Operand:
    """Return the operation on the bits of two integers. Of other types it is null, as is the result of _computed."""
    if left.type is not Type.INTEGER or right.type is not Type.INTEGER:
        return _Operand(Type.FLOAT, cast(literal(None, Text), Numeric))
    symbol = "#" if operator == "^" else operator
    bits = cast(left.sql, BigInteger).op(symbol, return_type=BigInteger())(cast(right.sql, BigInteger))
    return _Operand(Type.INTEGER, cast(bits, Numeric))


def _rounded(name: str, operand: _Operand) -> _Operand:
    if operand.type is not Type.FLOAT:
        return _Operand(Type.FLOAT, cast(literal(None, Text), Numeric))
    function = {"abs": func.abs, "floor": func.floor, "ceil": func.ceil, "round": func.round}[name]
    return _Operand(Type.FLOAT, function(operand.sql, type_=Numeric()))
