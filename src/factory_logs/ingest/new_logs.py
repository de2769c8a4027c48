"""Valid logs, column by column.

A few calls into C read, check or encode a whole column, in a fraction of the time that Python needs for the same values
one by one. `python -m benchmarks.batch_cpu` measures it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any, overload

from factory_logs.ingest.validation import NewLog
from factory_logs.schemas.timestamps import from_microseconds, to_microseconds


@dataclass(slots=True)
class NewLogs(Sequence[NewLog]):
    """The columns of valid logs, ready to be stored, and a sequence of these logs.

    Times are microseconds since 1970. `tags` and `fields` are JSON text in UTF-8, or None for SQL null.
    """

    app_names: list[str] = field(default_factory=list)
    product_imeis: list[str | None] = field(default_factory=list)
    repair_ids: list[int | None] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    tags: list[bytes | None] = field(default_factory=list)
    fields: list[bytes | None] = field(default_factory=list)

    @classmethod
    def of(cls, logs: Sequence[NewLog]) -> "NewLogs":
        if not logs:
            return cls()
        app_names, imeis, repair_ids, moments, tags, fields = map(list, zip(*logs, strict=True))
        return cls(
            app_names, imeis, repair_ids, list(map(to_microseconds, moments)), list(map(_json, tags)),
            list(map(_json, fields)),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.app_names)

    @overload
    def __getitem__(self, index: int) -> NewLog: ...
    @overload
    def __getitem__(self, index: slice) -> "NewLogs": ...
    def __getitem__(self, index: int | slice) -> "NewLog | NewLogs":
        values: Any = [column[index] for column in self._columns()]
        if isinstance(index, slice):
            return NewLogs(*values)
        app_name, imei, repair_id, timestamp, tags, fields = values
        return NewLog(app_name, imei, repair_id, from_microseconds(timestamp), _text(tags), _text(fields))

    def append(self, log: NewLog) -> None:
        self.app_names.append(log.app_name)
        self.product_imeis.append(log.product_imei)
        self.repair_ids.append(log.repair_id)
        self.timestamps.append(to_microseconds(log.timestamp))
        self.tags.append(_json(log.tags))
        self.fields.append(_json(log.fields))

    def extend(self, logs: "NewLogs") -> None:
        for column, more in zip(self._columns(), logs._columns(), strict=True):
            column += more

    def selected(self, keep: Sequence[bool]) -> "NewLogs":
        """Return the logs for which `keep` is true."""
        return NewLogs(*(list(compress(column, keep)) for column in self._columns()))

    def ordered(self, keys: Sequence[int]) -> "NewLogs":
        """Return the logs in ascending order of their keys."""
        order = sorted(range(len(keys)), key=keys.__getitem__)
        return NewLogs(*(list(map(column.__getitem__, order)) for column in self._columns()))

    def _columns(self) -> tuple[list[Any], ...]:
        return self.app_names, self.product_imeis, self.repair_ids, self.timestamps, self.tags, self.fields


def _json(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def _text(json: bytes | None) -> str | None:
    return None if json is None else json.decode()
