"""Which fields each resource has, and what a name in `q` means (SPEC 4, 5). Columns are read off the models."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sqlalchemy import Column, Float, Integer, String, Table
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

from factory_logs.db.models import Base, FactoryLog, Repair
from factory_logs.query.ast import Field, Kind

MAX_PATH_PARTS = 16
"""How many names a JSON path may have; deeper data can be stored (SPEC 1) but is not worth a longer query."""
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
    """A to-one relation: `foreign_key` of the resource points at the primary key of `target`."""

    foreign_key: str
    target: "Resource"


@dataclass(frozen=True)
class Resource:
    """What can be queried. `newest` names the column that says which record of a group is the newest (SPEC 4)."""

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
    """`app_name`, `repair__process` or `tags__jig_id` -> the field. Raises ValueError that says what is wrong."""
    if not isinstance(name, str):
        raise ValueError("a field's name must be a string")
    kind = resource.fields.get(name)
    if kind is not None:
        return Field(name, kind)
    head, separator, rest = name.partition(SEPARATOR)
    if separator and resource.fields.get(head) is Kind.JSON:
        return Field(head, Kind.JSON, path=_path(rest, name))
    relation = resource.relations.get(head)
    if separator and relation is not None:
        related = resolve(rest, relation.target)
        return Field(related.column, related.kind, relation=head, path=related.path)
    if relation is not None:
        raise ValueError(f"{name!r} is a relation; name one of its fields, such as {name}{SEPARATOR}process")
    raise ValueError(f"no field {shown(name)}")


def _path(rest: str, name: str) -> tuple[str, ...]:
    parts = tuple(rest.split(SEPARATOR))
    if not all(parts):
        raise ValueError(f"an empty part in the JSON path {shown(name)}")
    if len(parts) > MAX_PATH_PARTS:
        raise ValueError(f"a JSON path may have {MAX_PATH_PARTS} parts, this one has {len(parts)}")
    return parts


def shown(value: object) -> str:
    """A caller's value for an error message, cut to a length that fits one."""
    if isinstance(value, list | dict):  # may be too deep for repr
        return "a list" if isinstance(value, list) else "an object"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
