"""A factory log: the outside shape of the record, in and out (SPEC 1)."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from factory_logs.schemas.timestamps import SentTimestamp

Imei = Annotated[str, StringConstraints(pattern=r"^[0-9]{15}$"), Field(examples=["352099001761481"])]
"""Exactly 15 ASCII digits; no Luhn check."""

RepairId = Annotated[int, Field(description="A repair, as `/v1/repairs` lists them")]

IGNORED: Any = Field(None, description="Set by the system; ignored when sent", exclude=True)


class Submitted(BaseModel):
    """What every record that a client sends has in common: strict types, no unknown field, metadata ignored."""

    model_config = ConfigDict(strict=True, extra="forbid")

    created_at: Any = IGNORED
    created_by: Any = IGNORED
    modified_at: Any = IGNORED
    modified_by: Any = IGNORED


class FactoryLogIn(Submitted):
    """A log as a device sends it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "app_name": "tiger_test_jig_production",
                    "product_imei": "352099001761481",
                    "timestamp": "2024-01-31T13:45:00.123Z",
                    "tags": {"jig_id": "J-07", "hostname": "CN-REG03"},
                    "fields": {"passed": True, "voltage": 3.28},
                }
            ]
        }
    )

    factory_log_id: Any = IGNORED
    app_name: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    product_imei: Imei | None = None
    repair_id: RepairId | None = None
    timestamp: SentTimestamp
    tags: Any = Field(None, description="Who and where; normally an object", examples=[{"jig_id": "J-07"}])
    fields: Any = Field(None, description="What was measured; normally an object", examples=[{"passed": True}])


class FactoryLogOut(BaseModel):
    """A stored log."""

    factory_log_id: int = Field(examples=[1])
    app_name: str = Field(examples=["tiger_test_jig_production"])
    product_imei: str | None = Field(examples=["352099001761481"])
    repair_id: int | None = Field(examples=[None])
    timestamp: str = Field(description="UTC", examples=["2024-01-31 13:45:00.123000"])
    tags: Any = Field(examples=[{"jig_id": "J-07", "hostname": "CN-REG03"}])
    fields: Any = Field(examples=[{"passed": True, "voltage": 3.28}])
    created_at: str = Field(description="UTC, when it was stored", examples=["2024-01-31 13:45:01.004211"])
    created_by: str | None = Field(description="The user of the token", examples=["jig-07"])
    modified_at: None = Field(description="Always null: logs are never changed")
    modified_by: None = Field(description="Always null: logs are never changed")


class FactoryLogPage(BaseModel):
    """A page of logs (SPEC 4)."""

    num_results: int = Field(description="How many records `q` selects in all", examples=[1])
    total_pages: int = Field(examples=[1])
    page: int = Field(examples=[1])
    objects: list[FactoryLogOut]
