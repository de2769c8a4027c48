"""Changing the indexes of a table that is written to meanwhile: what migrations use.

CREATE INDEX and DROP INDEX keep writers out, the first one until it has read the whole table; CONCURRENTLY they do not.
But that takes no part in a transaction, and where it is broken off it leaves an INVALID index. So each step looks at
what is there first, and the next run goes on where one was broken off.
"""

from collections.abc import Mapping

from alembic.operations import Operations
from sqlalchemy import Connection, text

_THERE = text("""
SELECT c.relname, i.indisvalid, split_part(pg_get_indexdef(i.indexrelid), ' USING ', 2)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = to_regclass(:table)
""")


def change_indexes(op: Operations, table: str, wanted: Mapping[str, str | None]) -> None:
    """Bring the table's indexes of these names to these definitions, None for one that is to go.

    A definition is what PostgreSQL shows after USING. What the migration has done before is committed, unless the table
    is empty: then there is nothing to wait for, and all stays in the migration's transaction.
    """
    connection = op.get_bind()
    if connection.scalar(text(f"SELECT EXISTS (SELECT FROM {table})")):  # noqa: S608 - a migration's own word
        with op.get_context().autocommit_block():
            for name, definition in wanted.items():
                _change_beside_writers(connection, table, name, definition)
        return
    for name, definition in wanted.items():
        op.execute(f"DROP INDEX IF EXISTS {name}, {_successor(name)}")
        if definition is not None:
            op.execute(f"CREATE INDEX {name} ON {table} USING {definition}")


def _change_beside_writers(connection: Connection, table: str, name: str, definition: str | None) -> None:
    """The old index answers until the new one does, which has another name so long."""
    successor = _successor(name)
    there: dict[str, str] = {}
    for found, is_valid, its_definition in connection.execute(_THERE, {"table": table}):
        if is_valid:
            there[found] = its_definition
        elif found in (name, successor):
            _drop(connection, found)
    if there.get(name) == definition:
        return
    if definition is not None and there.get(successor) != definition:
        _drop(connection, successor)
        connection.execute(text(f"CREATE INDEX CONCURRENTLY {successor} ON {table} USING {definition}"))
    _drop(connection, name)
    if definition is not None:
        connection.execute(text(f"ALTER INDEX {successor} RENAME TO {name}"))


def _drop(connection: Connection, name: str) -> None:
    connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))


def _successor(name: str) -> str:
    return f"{name}_new"
