"""The fields of each resource, and how names in `q` are resolved (docs/reference/http-api.md#the-query-language-q).

Columns come from the models. The functions at the end suggest corrections of misspelt names, for error messages only: a
suggestion never changes how a query is parsed.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sqlalchemy import Column, Float, Integer, String, Table
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

from factory_logs.db.models import Base, FactoryLog, Repair
from factory_logs.query.ast import Field, Kind
from factory_logs.spelling import LONGEST_NAME, nearest

MAX_PATH_PARTS = 16
"""The maximum number of names in a JSON path. Deeper data can be stored (docs/reference/http-api.md#records), but
not queried."""
SEPARATOR = "__"

_KINDS: tuple[tuple[type, Kind], ...] = (
    (Integer, Kind.INT),
    (String, Kind.STR),
    (TIMESTAMP, Kind.DATETIME),
    (Float, Kind.FLOAT),
    (JSONB, Kind.JSON),
)


@dataclass(frozen=True)
class Relation:
    """A to-one relation: `foreign_key` of the resource refers to the primary key of `target`."""

    foreign_key: str
    target: "Resource"


@dataclass(frozen=True)
class Resource:
    """A table that `q` can query. The column `newest` determines the newest record of a group
    (docs/reference/http-api.md#the-query-language-q)."""

    model: type[Base]
    newest: str
    relations: Mapping[str, Relation] = field(default_factory=lambda: MappingProxyType({}))
    fields: Mapping[str, Kind] = field(init=False)

    def __post_init__(self) -> None:
        kinds = {column.name: _kind(column) for column in self.table.columns}
        object.__setattr__(self, "fields", MappingProxyType(kinds))

    @property
    def table(self) -> Table:
        table = self.model.__table__
        assert isinstance(table, Table)  # noqa: S101  a declarative model maps a table
        return table

    @property
    def primary_key(self) -> str:
        return next(iter(self.table.primary_key)).name


def _kind(column: Column[object]) -> Kind:
    return next(kind for sql_type, kind in _KINDS if isinstance(column.type, sql_type))


REPAIRS = Resource(Repair, newest="arrival_date")
FACTORY_LOGS = Resource(
    FactoryLog, newest="timestamp", relations=MappingProxyType({"repair": Relation("repair_id", REPAIRS)})
)


def resolve(name: object, resource: Resource) -> Field:
    """Return the field with a name such as `app_name`, `repair__process` or `tags__jig_id`. Raises ValueError."""
    if not isinstance(name, str):
        raise ValueError("a field's name must be a string")
    field = _resolve(name, resource)
    if field is None:
        raise ValueError(f"no field {shown(name)}; {_suggestion(name, resource)}")
    return field


def _resolve(name: str, resource: Resource) -> Field | None:
    kind = resource.fields.get(name)
    if kind is not None:
        return Field(name, kind)
    head, separator, rest = name.partition(SEPARATOR)
    if separator and resource.fields.get(head) is Kind.JSON:
        return Field(head, Kind.JSON, path=_path(rest, name))
    relation = resource.relations.get(head)
    if separator and relation is not None:
        related = _resolve(rest, relation.target)
        return related and Field(related.column, related.kind, relation=head, path=related.path)
    if relation is not None:
        raise ValueError(f"{name!r} is a relation; name one of its fields, such as {name}{SEPARATOR}process")
    return None


def _suggestion(name: str, resource: Resource) -> str:
    """Return the end of the message: the name that was probably meant, or the list of valid names."""
    composites = [*(column for column, kind in resource.fields.items() if kind is Kind.JSON), *resource.relations]
    for meant in _respelled(name, resource, composites):
        if _exists(meant, resource):
            return f"did you mean {meant}?"
    paths = "".join(f", {composite}{SEPARATOR}..." for composite in composites)
    return f"there are {', '.join(resource.fields)}{paths}"


def _respelled(name: str, resource: Resource, composites: list[str]) -> Iterator[str]:
    for meant in respelled(name, resource.fields, composites, SEPARATOR):
        yield meant
        head, _, rest = meant.partition(SEPARATOR)
        relation = resource.relations.get(head)
        if relation is not None:
            column = nearest(rest, relation.target.fields)
            yield f"{head}{SEPARATOR}{column}"


def _exists(name: str, resource: Resource) -> bool:
    try:
        return _resolve(name, resource) is not None
    except ValueError:
        return False


def _path(rest: str, name: str) -> tuple[str, ...]:
    if "\x00" in rest:
        raise ValueError(f"NUL in the JSON path {shown(name)}; no stored name holds it")
    parts = tuple(rest.split(SEPARATOR))
    if not all(parts):
        raise ValueError(f"an empty part in the JSON path {shown(name)}")
    if len(parts) > MAX_PATH_PARTS:
        raise ValueError(f"a JSON path may have {MAX_PATH_PARTS} parts, this one has {len(parts)}")
    return parts


def shown(value: object) -> str:
    """Return a client's value for an error message, shortened to a maximum length."""
    if isinstance(value, list | dict):  # the value may be nested too deep for repr
        return "a list" if isinstance(value, list) else "an object"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


_SEPARATORS = re.compile(r"(?:->>?|[.\[\]'\"/:])+_*|_{3,}")
_BEGINNING_AND_REST = re.compile(r"([A-Za-z]+)_+(.+)", re.DOTALL)


def nearest_member(given: Iterable[str], known: Collection[str]) -> tuple[str, str] | None:
    """Return the first unknown name that is similar to a known one, and that known name."""
    for name in given:
        if name not in known:
            meant = nearest(name, known) or next((each for each in known if name.lower().startswith(each)), None)
            if meant is not None:
                return name, meant
    return None


def respelled(name: str, columns: Collection[str], composites: Collection[str], separator: str) -> Iterable[str]:
    """Yield possible corrections of a field name, the most likely first; not all of them exist.

    `composites` are the columns and relations with which a path may begin: `tags.jig_id` -> `tags__jig_id`.
    """
    if len(name) > LONGEST_NAME:
        return
    path = _SEPARATORS.sub(separator, name).strip("_")
    yield path
    head, found, rest = path.partition(separator)
    if found:
        beginning = nearest(head, composites)
    else:
        parts = _BEGINNING_AND_REST.fullmatch(path)
        beginning, rest = (nearest(parts[1], composites), parts[2]) if parts else (None, "")
    if beginning is not None and rest:
        yield f"{beginning}{separator}{rest}"
    column = nearest(path, columns)
    if column is not None and not found:
        yield column
