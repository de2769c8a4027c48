"""A model of Grafana's InfluxDB data source: how it turns a response into frames.

The rules are those of pkg/tsdb/influxdb/influxql/buffered/response_parser.go and util.go of Grafana 12: the first value
that is not null determines the type of a column, times are whole milliseconds, and a list of names is a column.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx


class GrafanaError(Exception):
    """An error that Grafana shows on a panel."""


@dataclass
class Frame:
    """One line of a plot, or one list of names, as a panel receives it."""

    name: str
    values: list[Any]
    times: list[int] = field(default_factory=list)
    labels: Mapping[str, str] = field(default_factory=dict)


def frames(response: httpx.Response, statement: str) -> list[Frame]:
    """Return the frames of the first result, for the format time series."""
    return [frame for row in _rows(response) for frame in _frames_of_row(row, statement)]


def table(response: httpx.Response) -> list[dict[str, Any]]:
    """Return the rows of the first result, for the format table: time, tags, then the other columns."""
    return [
        dict(zip(row["columns"][:1], values[:1], strict=True)) | row.get("tags", {})
        | dict(zip(row["columns"][1:], values[1:], strict=True))
        for row in _rows(response)
        for values in row.get("values", ())
    ]  # fmt: skip


def names(response: httpx.Response, statement: str) -> list[str]:
    """Return the options of a template variable or of the query editor."""
    return list(dict.fromkeys(value for frame in frames(response, statement) for value in frame.values))


def _rows(response: httpx.Response) -> list[dict[str, Any]]:
    body = response.json()
    if response.status_code // 100 != 2:
        raise GrafanaError(f"InfluxDB returned error: {body['error']}")
    if "error" in body:
        raise GrafanaError(body["error"])
    result = body["results"][0]
    if "error" in result:
        raise GrafanaError(result["error"])
    rows: list[dict[str, Any]] = result.get("series", [])
    return rows


def _frames_of_row(row: dict[str, Any], statement: str) -> list[Frame]:
    columns, values, tags = row["columns"], row.get("values", []), row.get("tags", {})
    if "time" not in columns:
        index = 1 if "show tag values" in statement.lower() else 0
        return [Frame(row.get("name", ""), [value[index] for value in values])]
    assert columns[0] == "time"
    assert all(type(value[0]) is int for value in values)
    label = " { " + ", ".join(f"{key}: {value}" for key, value in tags.items()) + " }" if tags else ""
    found = []
    for index, column in enumerate(columns[1:], start=1):
        own = [value[index] for value in values]
        kinds = {bool if isinstance(value, bool) else str if isinstance(value, str) else float
                 for value in own if value is not None}  # fmt: skip
        assert len(kinds) <= 1, f"{column} has values of several types, of which Grafana drops all but one"
        found.append(Frame(f"{row['name']}.{column}{label}", own, [value[0] for value in values], tags))
    return found
