"""`factory-logs repairs`: store the repairs that logs refer to."""

from typing import TYPE_CHECKING, Annotated

import typer

from factory_logs.cli.commands import Commands
from factory_logs.cli.output import check_creator, reporting_errors
from factory_logs.schemas.repair import Process

if TYPE_CHECKING:
    from factory_logs.db.engine import Database
    from factory_logs.settings import Settings

app = Commands(help="Manage the repairs that logs refer to.", no_args_is_help=True)

DATE = "ISO 8601, such as 2024-01-31T13:45:00Z or 2024-01-31."


@app.callback()
def repairs() -> None:
    """Manage the repairs that logs refer to."""


@app.command("add")
def add_repair(
    product_imei: Annotated[str, typer.Option(help="The unit, 15 digits.")],
    process: Annotated[Process | None, typer.Option(help="The kind of repair.", case_sensitive=False)] = None,
    arrival_date: Annotated[str | None, typer.Option(help=DATE)] = None,
    refurbishment_date: Annotated[str | None, typer.Option(help=DATE)] = None,
    measured_battery_capacity: Annotated[float | None, typer.Option(help="In mAh.")] = None,
    pending_status: Annotated[str | None, typer.Option(help="The reason why the repair waits.")] = None,
    outcome: Annotated[str | None, typer.Option(help="The result.")] = None,
    created_by: Annotated[str | None, typer.Option(help="The name for `created_by`.")] = None,
) -> None:
    """Store a repair and print its repair_id on stdout."""
    with reporting_errors():
        from factory_logs.cli.database import with_database
        from factory_logs.cli.transfer.record_import import valid_repair
        from factory_logs.db.repairs import RepairRepository

        check_creator(created_by)
        values = valid_repair(
            {
                "product_imei": product_imei,
                "process": process,
                "arrival_date": arrival_date,
                "refurbishment_date": refurbishment_date,
                "measured_battery_capacity": measured_battery_capacity,
                "pending_status": pending_status,
                "outcome": outcome,
            }
        )

        async def add(database: "Database", settings: "Settings") -> int:
            repair_id, _ = await RepairRepository(database).add(values, created_by)
            return repair_id

        typer.echo(with_database(add))
