"""A repair: one stay of one unit in a repair centre (SPEC 2)."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from factory_logs.schemas.factory_log import IGNORED, Imei, Submitted
from factory_logs.schemas.timestamps import Timestamp


class Process(StrEnum):
    """What was done with the unit."""

    REPAIR_AND_RETURN = "Repair and Return"
    REPLACED = "Replaced"
    REPOSSESSED = "Repossessed"
    BROKEN_ON_ARRIVAL = "Broken on Arrival"


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("the NUL character cannot be stored")
    return text


Text = Annotated[str, StringConstraints(max_length=255), AfterValidator(_without_nul)]


class RepairIn(Submitted):
    """A repair as a client sends it."""

    repair_id: Any = IGNORED
    product_imei: Imei
    arrival_date: Timestamp | None = None
    refurbishment_date: Timestamp | None = None
    measured_battery_capacity: Annotated[float, Field(allow_inf_nan=False, examples=[3050.0])] | None = None
    process: Annotated[Process, Field(strict=False)] | None = None
    pending_status: Text | None = None
    outcome: Text | None = None


class RepairOut(BaseModel):
    """A stored repair."""

    repair_id: int
    product_imei: str
    arrival_date: str | None
    refurbishment_date: str | None
    measured_battery_capacity: float | None
    process: Process | None
    pending_status: str | None
    outcome: str | None
    created_at: str
    created_by: str | None
    modified_at: str | None
    modified_by: str | None


class RepairPage(BaseModel):
    """A page of repairs (SPEC 4)."""

    num_results: int
    total_pages: int
    page: int
    objects: list[RepairOut]
