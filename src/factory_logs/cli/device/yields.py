"""`factory-logs yield`: show how many attempts and units pass, by time and by any field."""

from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from factory_logs.cli.device.filters import Q, Where, explain_nothing, field_name, selection
from factory_logs.cli.device.options import (
    AsCsv,
    AsJson,
    ServerOptions,
    Wait,
    check_formats,
    with_server_options,
)
from factory_logs.cli.output import (
    EscapeFormulas,
    ending_with_the_reader,
    print_table,
    reporting_errors,
    shown,
    write_csv,
    write_json,
)

if TYPE_CHECKING:
    from factory_logs.client import ResultRows

SHOWN = ("attempts", "units", "retested", "attempt_yield", "first_pass_yield", "final_yield")
"""The columns that fit on a terminal. The output of --json and --csv contains all columns."""


@with_server_options
def show_yield(
    q: Q = None,
    where: Where = None,
    bucket: Annotated[
        str | None,
        typer.Option(
            help="The length of a time bucket, such as 1h, 1d or 1w; each bucket is a row.", show_default="none"
        ),
    ] = None,
    by: Annotated[
        list[str] | None, typer.Option(help="A field such as app_name or tags.jig_id; each value is a row.")
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="The field that identifies a unit.", show_default="product_imei")
    ] = None,
    passed: Annotated[
        str | None, typer.Option(help="The field with the verdict of an attempt.", show_default="fields.passed")
    ] = None,
    tz: Annotated[
        str | None,
        typer.Option(
            help="The time zone in which days and weeks begin at midnight, such as Asia/Shanghai.", show_default="UTC"
        ),
    ] = None,
    json: AsJson = False,
    csv: AsCsv = False,
    escape_formulas: EscapeFormulas = False,
    wait: Wait = 30.0,
    *,
    server: ServerOptions,
) -> None:
    """Show first-pass and final yield. Times in a table are in --tz; times in --json and --csv are in UTC, as in the
    API."""
    with reporting_errors(), ending_with_the_reader():
        check_formats(json, csv)
        asked = selection(q, where)
        groups = [field_name(name) for name in by or ()]
        unit, passed = unit and field_name(unit), passed and field_name(passed)
        with server.reader(wait) as reader:
            found = reader.yields(asked, bucket=bucket, by=groups, unit=unit, passed=passed, tz=tz)
        if json:
            write_json(found.body)
        elif csv:
            write_csv(found.columns, found, escape_formulas=escape_formulas)
        else:
            _show(found, groups, bucket, tz)
        if not found.body["total"]["attempts"]:
            explain_nothing(server, asked, [name for name in (unit, passed, *groups) if name])


def _show(found: "ResultRows", groups: Sequence[str], bucket: str | None, tz: str | None) -> None:
    """Print a table: the rows, then the total."""
    from rich.table import Table
    from rich.text import Text

    zone = _zone(tz)
    table = Table(show_footer=bool(bucket or groups))
    keys = [*(() if bucket is None else (f"bucket ({zone})",)), *groups]
    for index, name in enumerate(keys):
        table.add_column(name, footer="total" if index == 0 else "")
    total = found.body["total"]
    for name in SHOWN:
        table.add_column(name.replace("_", " "), footer=_number(total.get(name)), justify="right")
    for row in found:
        times = [] if bucket is None else [_local(row["bucket"], zone)]
        texts = [*times, *(shown(row[name]) for name in groups), *(_number(row[name]) for name in SHOWN)]
        table.add_row(*map(Text, texts))
    rolled = total.get("rolled_throughput_yield")
    if rolled is not None:
        table.caption = f"rolled throughput yield, all apps: {_number(rolled)}"
    print_table(table)


def _number(value: Any) -> str:
    """Return a share as a percentage and a count unchanged. A yield without attempts or units becomes empty text."""
    if value is None:
        return ""
    return f"{value:.2%}" if isinstance(value, float) else str(value)


def _zone(tz: str | None) -> tzinfo:
    """Return the time zone for a table, or UTC if this machine does not know `tz`."""
    try:
        return UTC if tz is None else ZoneInfo(tz)
    except ZoneInfoNotFoundError:
        return UTC


def _local(bucket: str, zone: tzinfo) -> str:
    """Return the time of a bucket, given in UTC, in this time zone."""
    return f"{datetime.fromisoformat(bucket).replace(tzinfo=UTC).astimezone(zone):%Y-%m-%d %H:%M:%S}"
