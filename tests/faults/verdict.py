"""The fate of every write: the writers' records compared with the rows of the table."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import asyncpg

from tests.faults.writers import APP, Write

_ROWS = """
SELECT factory_log_id, fields->>'write', (fields->>'index')::int FROM factory_logs WHERE app_name = $1
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Numbers of logs. `lost`, `doubled` and `torn` must be 0; `torn` counts batches of which only a part is stored."""

    acknowledged: int
    unacknowledged: int
    stored: int
    lost: int
    doubled: int
    torn: int

    def check(self) -> None:
        assert (self.lost, self.doubled, self.torn) == (0, 0, 0), self


async def judge(connection: asyncpg.Connection, writes: Iterable[Write]) -> Verdict:
    """Every acknowledged log is stored once, under the id of its response; every other log at most once."""
    rows = await connection.fetch(_ROWS, APP)
    indexes: dict[str, Counter[int]] = defaultdict(Counter)
    by_id = {}
    for factory_log_id, name, index in rows:
        indexes[name][index] += 1
        by_id[factory_log_id] = (name, index)
    acknowledged = unacknowledged = stored = lost = doubled = torn = 0
    for write in writes:
        found = indexes[write.name]
        stored += found.total()
        doubled += sum(count - 1 for count in found.values())
        torn += len(found) not in (0, write.size)
        if write.ids is None:
            unacknowledged += write.size
        else:
            acknowledged += write.size
            lost += sum(by_id.get(id_) != (write.name, index) for index, id_ in enumerate(write.ids))
    return Verdict(acknowledged, unacknowledged, stored, lost, doubled, torn)
