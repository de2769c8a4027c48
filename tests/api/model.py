"""A model of the service in plain Python: the oracle of test_stateful.py."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hypothesis import strategies as st

Record = dict[str, Any]
FIELDS = ("app_name", "product_imei", "repair_id", "timestamp", "tags", "fields")
IMEIS = ("352099001761481", "490154203237518")
APPS = st.sampled_from(["tiger", "koala_test", "π"])
# A datetime as a client sends it, and as the service returns it (docs/reference/http-api.md#records).
MOMENTS = {
    "2024-01-31 13:45:00": "2024-01-31 13:45:00",
    "2024-01-31T15:45:00.5+01:00": "2024-01-31 14:45:00.500000",
    "2024-02-01": "2024-02-01 00:00:00",
    1706708700000: "2024-01-31 13:45:00",
    1706745600001: "2024-02-01 00:00:00.001000",
}
NUMBERS = st.sampled_from([0, 2, 2.0, -1, 3.28, 2**53 + 1, True, "2", None])
TAGS = st.none() | st.fixed_dictionaries({"jig_id": st.sampled_from(["J-07", "J-08", 7])})
REPAIRS = st.fixed_dictionaries(
    {"product_imei": st.sampled_from(IMEIS)},
    optional={
        "process": st.sampled_from(["Replaced", "Repossessed", None]),
        "measured_battery_capacity": st.sampled_from([2.5, 3.0, None]),
    },
)
GOOD_LOGS = st.fixed_dictionaries(
    {"app_name": APPS, "timestamp": st.sampled_from(list(MOMENTS))},
    optional={
        "product_imei": st.sampled_from([*IMEIS, None]),
        "tags": TAGS,
        "fields": st.none() | st.fixed_dictionaries({"n": NUMBERS, "passed": st.booleans()}),
    },
)
BAD_LOGS = st.sampled_from(
    [
        {"app_name": "bad"},
        {"app_name": "", "timestamp": "2024-01-31"},
        {"app_name": "bad", "timestamp": "yesterday"},
        {"app_name": "bad", "timestamp": "2024-01-31", "product_imei": "12"},
        {"app_name": "bad", "timestamp": "2024-01-31", "colour": "red"},
        {"app_name": "bad", "timestamp": "2024-01-31", "fields": {"text": "\0"}},
        {"app_name": "bad", "timestamp": "2024-01-31", "repair_id": 2**31 - 1},
        [],
    ]
)


class Request(NamedTuple):
    """The parts of a write that its key covers."""

    path: str
    content_type: str
    content: bytes
    on_error: str | None = None

    @property
    def is_batch(self) -> bool:
        return self.content_type.endswith("ndjson") or self.content.startswith(b"[")


class Filter(NamedTuple):
    """Return a filter of `q`, and a function that tests a log against it; `repairs` are the existing repairs."""

    q: Record
    passes: Callable[[Record, dict[int, Record]], bool]


def at(log: Record, path: str) -> Any:
    first, *rest = path.split("__")
    value = log[first]
    for name in rest:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def process(log: Record, repairs: dict[int, Record]) -> str | None:
    return repairs[log["repair_id"]].get("process") if log["repair_id"] else None


_LEAVES = [
    Filter({"name": "app_name", "op": "==", "val": "tiger"}, lambda log, _: log["app_name"] == "tiger"),
    Filter({"name": "app_name", "op": "in", "val": ["π", "x"]}, lambda log, _: log["app_name"] == "π"),
    Filter({"name": "product_imei", "op": "==", "val": IMEIS[0]}, lambda log, _: log["product_imei"] == IMEIS[0]),
    Filter({"name": "product_imei", "op": "is_null"}, lambda log, _: log["product_imei"] is None),
    Filter({"name": "timestamp", "op": ">=", "val": "2024-02-01"}, lambda log, _: log["timestamp"] >= "2024-02-01"),
    Filter({"name": "tags__jig_id", "op": "==", "val": "J-07"}, lambda log, _: at(log, "tags__jig_id") == "J-07"),
    Filter({"name": "fields__n", "op": ">=", "val": 2}, lambda log, _: is_number(n := at(log, "fields__n")) and n >= 2),
    Filter({"name": "fields__passed", "op": "==", "val": False}, lambda log, _: at(log, "fields__passed") is False),
    Filter({"name": "repair", "op": "has", "val": {"name": "process", "op": "==", "val": "Replaced"}},
           lambda log, repairs: process(log, repairs) == "Replaced"),
    Filter({"name": "repair__process", "op": "!=", "val": "Replaced"},
           lambda log, repairs: process(log, repairs) not in ("Replaced", None)),
]  # fmt: skip


def either(one: Filter, two: Filter) -> Filter:
    return Filter({"or": [one.q, two.q]}, lambda *log: one.passes(*log) or two.passes(*log))


def neither(one: Filter) -> Filter:
    return Filter({"not": one.q}, lambda *log: not one.passes(*log))


FILTERS = st.lists(
    st.recursive(
        st.sampled_from(_LEAVES),
        lambda inner: st.builds(either, inner, inner) | st.builds(neither, inner),
        max_leaves=3,
    ),
    max_size=2,
)
ORDERS = st.sampled_from([None, ("timestamp", "asc"), ("timestamp", "desc"), ("factory_log_id", "desc")])


@dataclass
class Model:
    """All that was acknowledged."""

    logs: dict[int, Record] = field(default_factory=dict)
    repairs: dict[int, Record] = field(default_factory=dict)
    keys: dict[str, tuple[Request, bytes]] = field(default_factory=dict)
    """The first write of each key, and its response."""

    def is_good(self, sent: Any) -> bool:
        """Return whether a generated log is valid."""
        return isinstance(sent, dict) and sent["app_name"] not in ("bad", "") and self.has_its_repair(sent)

    def has_its_repair(self, sent: Record) -> bool:
        return sent.get("repair_id") is None or sent["repair_id"] in self.repairs

    def keep(self, log_id: int, sent: Record) -> None:
        assert log_id not in self.logs
        self.logs[log_id] = {
            **dict.fromkeys(FIELDS), **sent, "timestamp": MOMENTS[sent["timestamp"]], "factory_log_id": log_id,
        }  # fmt: skip

    def found(self, filters: list[Filter], order: tuple[str, str] | None) -> list[int]:
        """Return the ids of the matching logs, in order; the id breaks ties."""
        ids = sorted(
            number for number, log in self.logs.items() if all(one.passes(log, self.repairs) for one in filters)
        )
        if order is not None:
            name, direction = order
            ids.sort(key=lambda number: self.logs[number][name], reverse=direction == "desc")
        return ids
