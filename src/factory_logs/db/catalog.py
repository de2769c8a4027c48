"""The SQL of the catalog: the apps, and the paths of `tags` and `fields` with the types of their values.

The types are those of JSON, but numbers are `integer` if they have no decimal point and fit in 64 bits, else `float`,
as in line protocol and InfluxQL.

Opening every object of every log would take most of the time, and nearly all logs of an app have the same paths. So
only a few logs are opened. Then a query finds logs with a key, or a type at a key, that none of the opened logs has. It
only compares known keys and opens no log, so it takes a fraction of the time. This repeats until no such log is left.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Select,
    Text,
    any_,
    bindparam,
    func,
    literal,
    literal_column,
    select,
    text,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from factory_logs.db.aggregates import LOGS

Conditions = Sequence[ColumnElement[bool]]
PathRow = tuple[str, list[str], str, int]

OPENED = 500
"""The number of logs that are opened at a time."""
MOST_COMPARED = 1_000
"""With more paths than this, comparing a log takes longer than opening it."""

_TOP = """
logs CROSS JOIN LATERAL (VALUES ('tags', logs.tags), ('fields', logs.fields)) AS top (name, value)
"""
_LEVEL = """
logs JOIN jsonb_to_recordset(CAST(:objects AS jsonb)) AS object (number int, app_name text, name text, path text[])
    ON object.app_name = logs.app_name
CROSS JOIN LATERAL (SELECT {value} AS value) AS parent
CROSS JOIN LATERAL jsonb_each(CASE jsonb_typeof(parent.value) WHEN 'object' THEN parent.value END) AS child (key, value)
"""

_IS_INTEGER = (
    "scale(({value})::numeric) = 0 AND ({value})::numeric BETWEEN -9223372036854775808 AND 9223372036854775807"
)
_TYPE = f"""CASE WHEN jsonb_typeof({{value}}) <> 'number' THEN jsonb_typeof({{value}})
    WHEN {_IS_INTEGER} THEN 'integer' ELSE 'float' END"""
_NUMBERS = frozenset({"integer", "float"})

_HOLDS_ANYTHING = "(factory_logs.tags IS NOT NULL OR factory_logs.fields IS NOT NULL)"
"""Without it, logs without any value would be opened again and again."""


class _Path(NamedTuple):
    """A path in the logs of an app: in `tags` or `fields`, then these keys."""

    app_name: str
    name: str
    keys: tuple[str, ...]

    @property
    def parent(self) -> "_Path":
        return self._replace(keys=self.keys[:-1])

    def child(self, key: str) -> "_Path":
        return self._replace(keys=(*self.keys, key))


class _Value(NamedTuple):
    """A path, and the type of a value there."""

    path: _Path
    type: str


_WORK_ALONE = text("""
    SELECT pg_try_advisory_xact_lock(hashtextextended('factory-logs catalog', 0)),
        set_config('max_parallel_workers_per_gather', '0', true)
""")


async def work_alone(connection: AsyncConnection) -> bool:
    """Return whether this transaction has the lock for background work on the catalog. Only one does so at a time,
    without parallel workers."""
    return bool((await connection.execute(_WORK_ALONE)).scalar_one())


def app_rows(conditions: Conditions) -> Select[Any]:
    """Return a statement with one row for each app: its name, the number of logs, the times of the first and the last
    log, and the numbers of logs with a unit and with a repair."""
    time = LOGS.c.timestamp
    columns = (
        func.count().label("logs"),
        func.min(time).label("first"),
        func.max(time).label("last"),
        func.count(LOGS.c.product_imei).label("with_unit"),
        func.count(LOGS.c.repair_id).label("with_repair"),
    )
    return select(LOGS.c.app_name, *columns).where(*conditions).group_by(LOGS.c.app_name)


def tag_set_rows(conditions: Conditions) -> Select[Any]:
    """Return a statement with one row for each app and value of `tags`: the app, the tags and the number 1."""
    one: ColumnElement[int] = literal_column("1")
    return select(LOGS.c.app_name, LOGS.c.tags, one).where(*conditions).group_by(LOGS.c.app_name, LOGS.c.tags)


async def path_rows(
    connection: AsyncConnection, conditions: Conditions, most: int, known: Iterable[tuple[str, Sequence[str], str]] = ()
) -> list[PathRow]:
    """Return one row for each app, path and type that is not known, with the number 1. A path is `tags` or `fields`,
    then the keys.

    Stop after more than `most` rows, or more than twice as many including the objects above them.
    """
    before = _with_objects(known)
    if len(before) > MOST_COMPARED:
        apps = set((await connection.execute(select(LOGS.c.app_name).where(*conditions).distinct())).scalars())
        before = {value for value in before if value.path.app_name in apps}
    values = set(before)
    while len(values) <= MOST_COMPARED:
        unlike = select(LOGS.c.factory_log_id).where(*conditions, *_unlike(values)).limit(OPENED)
        ids = (await connection.execute(unlike)).scalars().all()
        if ids:
            values |= await _opened(connection, [LOGS.c.factory_log_id == any_(literal(ids, ARRAY(BigInteger)))], most)
        if len(ids) < OPENED:
            break
    else:
        values = await _opened(connection, conditions, most)
    are_cut_off = len(values) > 2 * most
    return [
        (path.app_name, [path.name, *path.keys], kind, 1)
        for path, kind in values - before
        if kind != "object" or are_cut_off
    ]


def _with_objects(known: Iterable[tuple[str, Sequence[str], str]]) -> set["_Value"]:
    """Return the values at known paths, and the objects above them."""
    values: set[_Value] = set()
    for app, (name, *keys), kind in known:
        values.add(_Value(_Path(app, name, tuple(keys)), kind))
        values |= {_Value(_Path(app, name, tuple(keys[:depth])), "object") for depth in range(len(keys))}
    return values


async def _opened(connection: AsyncConnection, conditions: Conditions, most: int) -> set["_Value"]:
    """Return the values in the logs. Each level is one statement over the objects found in the level above."""
    found: set[_Value] = set()
    rows = (await connection.execute(_top(conditions).limit(2 * most + 1))).all()
    level = [_Value(_Path(app, name, ()), kind) for app, name, kind in rows]
    while level:
        found.update(level)
        objects = [path for path, kind in level if kind == "object"]
        if not objects or len(found) > 2 * most:
            break
        rows = (await connection.execute(_level(conditions, objects).limit(2 * most + 1))).all()
        level = [_Value(objects[parent].child(key), kind) for parent, key, kind in rows]
    return found


def _unlike(values: set["_Value"]) -> Conditions:
    """Return SQL conditions for the logs that contain a value that is not in the list of known values.

    The conditions are text: for hundreds of paths, SQLAlchemy would take longer to compile them than PostgreSQL takes
    to evaluate them.
    """
    if not values:
        return [cast(ColumnElement[bool], text(_HOLDS_ANYTHING))]
    types: defaultdict[_Path, set[str]] = defaultdict(set)
    for path, kind in values:
        types[path].add(kind)
    for path in list(types):
        for name in ("tags", "fields"):  # an app may have no value there yet
            types.setdefault(_Path(path.app_name, name, ()), set())
    keys: defaultdict[_Path, list[str]] = defaultdict(list)
    for path in sorted(types):
        if path.keys:
            keys[path.parent].append(path.keys[-1])
    parameters = _Parameters()
    unlike: defaultdict[str, list[str]] = defaultdict(list)
    for path, found in sorted(types.items()):
        value = "".join((f"factory_logs.{path.name}", *(f" -> {parameters.text(key)}" for key in path.keys)))
        cases = [f"WHEN '{kind}' THEN false" for kind in sorted(found - _NUMBERS - {"object"})]
        if found & _NUMBERS:
            cases.append(f"WHEN 'number' THEN {_other_number(found & _NUMBERS, value)}")
        if "object" in found:
            known = f"ARRAY[{', '.join(map(parameters.text, keys[path]))}]::text[]"
            cases.insert(0, f"WHEN 'object' THEN ({value}) - {known} <> '{{}}'")
        other = f"({value}) IS NOT NULL"
        unlike[path.app_name].append(
            f"CASE jsonb_typeof({value}) {' '.join(cases)} ELSE {other} END" if cases else other
        )
    apps = (f"WHEN {parameters.text(app)} THEN {' OR '.join(of_app)}" for app, of_app in unlike.items())
    condition = text(f"CASE factory_logs.app_name {' '.join(apps)} ELSE {_HOLDS_ANYTHING} END")
    return [cast(ColumnElement[bool], condition.bindparams(**parameters.named))]


def _other_number(known: set[str], value: str) -> str:
    """Return the SQL condition that a number is of a type not known yet."""
    if known == _NUMBERS:
        return "false"
    is_integer = _IS_INTEGER.format(value=value)
    return f"({is_integer})" if known == {"float"} else f"NOT ({is_integer})"


class _Parameters:
    """The parameters of a statement, one for each distinct text."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def text(self, value: str) -> str:
        """Return the SQL of a parameter with this value."""
        return f"CAST(:{self._names.setdefault(value, f'text_{len(self._names)}')} AS text)"

    @property
    def named(self) -> dict[str, str]:
        return {name: value for value, name in self._names.items()}


def _logs(conditions: Conditions) -> Any:
    return select(LOGS.c.app_name, LOGS.c.tags, LOGS.c.fields).where(*conditions).cte("logs")


def _top(conditions: Conditions) -> Select[Any]:
    """Return a statement with one row for each app, column (`tags` or `fields`), and type of the column's value."""
    columns: list[ColumnElement[Any]] = [
        literal_column(name, Text) for name in ("logs.app_name", "top.name", _TYPE.format(value="top.value"))
    ]
    found = select(*columns).select_from(text(_TOP)).where(literal_column("top.value IS NOT NULL"))
    return found.distinct().add_cte(_logs(conditions))


def _level(conditions: Conditions, objects: Sequence[_Path]) -> Select[Any]:
    """Return a statement with one row for each object, key and type: the position of the object in the list, the key,
    and the JSON type of its value."""
    # Not #>, which uses a numeric key as an index if a log has an array there.
    keys = "".join(f" -> object.path[{depth}]" for depth in range(1, len(objects[0].keys) + 1))
    value = f"(CASE object.name WHEN 'tags' THEN logs.tags ELSE logs.fields END){keys}"
    listed = [
        {"number": number, "app_name": path.app_name, "name": path.name, "path": path.keys}
        for number, path in enumerate(objects)
    ]
    source = text(_LEVEL.format(value=value)).bindparams(bindparam("objects", json.dumps(listed), Text))
    columns: list[ColumnElement[Any]] = [
        literal_column(name, Text) for name in ("object.number", "child.key", _TYPE.format(value="child.value"))
    ]
    return select(*columns).select_from(source).distinct().add_cte(_logs(conditions))
