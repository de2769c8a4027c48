"""Check the values in `q` against the fields with which they are compared.

The functions raise ValueError with the reason; the parser adds the path.
"""

import json
import math
from decimal import Decimal

from factory_logs.query.ast import Field, Json, Kind, OutOfRangeInteger, Value
from factory_logs.query.fields import shown
from factory_logs.query.operators import COMPARISONS, EQUALITIES, MEMBERSHIPS, PATTERNS, Operator
from factory_logs.schemas.timestamps import parse_timestamp

NUMBERS = frozenset({Kind.INT, Kind.FLOAT})
BIGINT = range(-(2**63), 2**63)
MAX_NESTING = 32
"""The maximum nesting of a value. Deeper values cannot be stored (docs/reference/http-api.md#records), so no record can
match them."""


def check_storable(document: object) -> None:
    """Raise ValueError if PostgreSQL cannot store a part of the document, such as NUL, a lone surrogate or an
    overflowing number.

    It uses an explicit stack instead of recursion, because the client chooses the depth of the document.
    """
    stack = [document]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            _check_text(value)
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError("a number is out of the range of a double")
        elif isinstance(value, dict):
            stack.extend(value)
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)


def _check_text(text: str) -> None:
    if "\x00" in text:
        raise ValueError("a string holds NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a string holds a lone surrogate") from None


def check_value(value: object, field: Field, operator: Operator) -> Value:
    """Return the value in the form that the compiler needs. Raises ValueError."""
    if operator in PATTERNS:
        return _pattern(value, field)
    if field.kind is Kind.JSON:
        return _json(value, field, operator)
    if field.kind is Kind.DATETIME:
        return parse_timestamp(value)
    if field.kind is Kind.STR and isinstance(value, str):
        return value
    if field.kind is Kind.INT and isinstance(value, int) and not isinstance(value, bool):
        return value if value in BIGINT else OutOfRangeInteger(Decimal(value))
    if field.kind is Kind.FLOAT and isinstance(value, int | float) and not isinstance(value, bool):
        return _double(value)
    raise ValueError(f"{field.column} takes {field.kind.value}, not {shown(value)}")


def _double(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        raise ValueError("a number is out of the range of a double") from None


def _pattern(value: object, field: Field) -> str:
    if field.kind is not Kind.STR and not field.path:
        raise ValueError(f"{field.column} is {field.kind.value}; like and ilike take a string field")
    if not isinstance(value, str):
        raise ValueError(f"a pattern must be a string, not {shown(value)}")
    backslashes = len(value) - len(value.rstrip("\\"))
    if backslashes % 2:
        raise ValueError("a pattern must not end with its escape character, a backslash")
    return value


def _json(value: object, field: Field, operator: Operator) -> Json:
    json_type = _json_type(value)
    if json_type == "null":
        raise ValueError("null cannot be compared with; use is_null or is_not_null")
    if json_type in ("array", "object"):
        if operator not in EQUALITIES | MEMBERSHIPS:
            raise ValueError(f"{operator.label} does not take an {json_type}")
        _check_nesting(value)
    if not field.path and operator not in EQUALITIES:
        raise ValueError(f"{field.column} as a whole takes only ==, !=, is_null and is_not_null")
    return Json(json.dumps(value, ensure_ascii=False, allow_nan=False), json_type)


def _json_type(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _check_nesting(value: object) -> None:
    level = [value]
    for _ in range(MAX_NESTING):
        containers = [item for item in level if isinstance(item, list | dict)]
        if not containers:
            return
        level = [child for item in containers for child in (item if isinstance(item, list) else item.values())]
    if any(isinstance(item, list | dict) for item in level):
        raise ValueError(f"a value may nest {MAX_NESTING} deep")


def check_comparable(left: Field, operator: Operator, right: Field) -> None:
    """Raise ValueError if the two fields cannot be compared. JSON can be compared with every kind of field except
    datetimes."""
    if operator not in COMPARISONS:
        raise ValueError(f"{operator.label} does not compare two fields")
    for field in (left, right):
        if field.kind is Kind.JSON and not field.path and operator not in EQUALITIES:
            raise ValueError(f"{field.column} as a whole takes only == and !=")
    kinds = {left.kind, right.kind}
    alike = len(kinds) == 1 or kinds <= NUMBERS or (Kind.JSON in kinds and Kind.DATETIME not in kinds)
    if not alike:
        raise ValueError(f"{left.column} is {left.kind.value}, {right.column} is {right.kind.value}")
