"""A repair: one stay of one unit in a repair centre (docs/reference/http-api.md#repairs)."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from factory_logs.schemas.factory_log import IGNORED, Imei, Submitted
from factory_logs.schemas.timestamps import NullableTimestamp


class Process(StrEnum):
    """The work that was done on the unit."""

    REPAIR_AND_RETURN = "Repair and Return"
    REPLACED = "Replaced"
    REPOSSESSED = "Repossessed"
    BROKEN_ON_ARRIVAL = "Broken on Arrival"


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("the NUL character cannot be stored")
    return text


Text = Annotated[
    str,
    StringConstraints(max_length=255),
    AfterValidator(_without_nul),
    Field(json_schema_extra={"pattern": "^[^\\u0000]*$"}),
]


class RepairIn(Submitted):
    """A repair as a client sends it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "product_imei": "352099001761481",
                    "arrival_date": "2024-01-29T08:30:00Z",
                    "measured_battery_capacity": 3050.0,
                    "process": "Repair and Return",
                    "pending_status": "waiting for parts",
                }
            ]
        }
    )

    repair_id: Any = IGNORED
    product_imei: Imei
    arrival_date: NullableTimestamp = None
    refurbishment_date: NullableTimestamp = None
    measured_battery_capacity: Annotated[float, Field(allow_inf_nan=False, examples=[3050.0])] | None = None
    process: Annotated[Process, Field(strict=False)] | None = None
    pending_status: Text | None = None
    outcome: Text | None = None


class RepairOut(BaseModel):
    """A stored repair."""

    repair_id: int = Field(examples=[1])
    product_imei: str = Field(examples=["352099001761481"])
    arrival_date: str | None = Field(description="UTC", examples=["2024-01-29 08:30:00"])
    refurbishment_date: str | None = Field(description="UTC", examples=[None])
    measured_battery_capacity: float | None = Field(description="In mAh", examples=[3050.0])
    process: Process | None = Field(examples=["Repair and Return"])
    pending_status: str | None = Field(description="The reason why the repair waits", examples=["waiting for parts"])
    outcome: str | None = Field(description="The result of the repair", examples=[None])
    created_at: str = Field(description="When the repair was stored, UTC", examples=["2024-01-29 08:31:12.004211"])
    created_by: str | None = Field(description="The user whose token was used", examples=["ann"])
    modified_at: str | None = Field(examples=[None])
    modified_by: str | None = Field(examples=[None])


class RepairPage(BaseModel):
    """A page of repairs."""

    num_results: int = Field(description="The number of all repairs that `q` selects", examples=[1])
    total_pages: int = Field(examples=[1])
    page: int = Field(examples=[1])
    objects: list[RepairOut]
