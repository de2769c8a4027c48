"""A factory log in requests and responses, and the response to a batch (docs/reference/http-api.md#records)."""

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from factory_logs.schemas.errors import ErrorDetail
from factory_logs.schemas.timestamps import SentTimestamp

IMEI_DIGITS = 15
IMEI_PATTERN = f"[0-9]{{{IMEI_DIGITS}}}"
EXPECTED_IMEI = f"expected exactly {IMEI_DIGITS} digits"
Imei = Annotated[str, StringConstraints(pattern=f"^{IMEI_PATTERN}$"), Field(examples=["352099001761481"])]
"""The IMEI of a unit: ASCII digits, without a Luhn check."""
LONGEST_APP_NAME = 255
"""The maximum length of an `app_name`, in characters."""
_DIGITS = re.compile(r"-?[0-9]{1,19}", re.ASCII)
DIGITS_PATTERN = "^-?[0-9]{1,18}$"
"""The pattern for an integer as a string, in the OpenAPI document."""


def as_integer(value: object) -> object:
    """Return the integer for a string of digits or for a float without a fraction, and any other value unchanged."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


RepairId = Annotated[
    int,
    BeforeValidator(as_integer),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string", "pattern": DIGITS_PATTERN}],
            "description": "The id of a repair in `/v1/repairs`, also as a string of digits",
        },
        mode="validation",
    ),
]

IGNORED: Any = Field(None, description="Set by the system; ignored when sent", exclude=True)


class Submitted(BaseModel):
    """The base of records that clients send: strict types, no unknown fields, metadata ignored."""

    model_config = ConfigDict(strict=True, extra="forbid")

    created_at: Any = IGNORED
    created_by: Any = IGNORED
    modified_at: Any = IGNORED
    modified_by: Any = IGNORED


class FactoryLogIn(Submitted):
    """A log as clients send it."""

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
    app_name: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_APP_NAME)]
    product_imei: Imei | None = None
    repair_id: RepairId | None = None
    timestamp: SentTimestamp
    tags: Any = Field(
        None, description="Who wrote the log and where, normally an object", examples=[{"jig_id": "J-07"}]
    )
    fields: Any = Field(None, description="The measurements, normally an object", examples=[{"passed": True}])


class FactoryLogOut(BaseModel):
    """A stored log."""

    factory_log_id: int = Field(examples=[1])
    app_name: str = Field(examples=["tiger_test_jig_production"])
    product_imei: str | None = Field(examples=["352099001761481"])
    repair_id: int | None = Field(examples=[None])
    timestamp: str = Field(description="UTC", examples=["2024-01-31 13:45:00.123000"])
    tags: Any = Field(examples=[{"jig_id": "J-07", "hostname": "CN-REG03"}])
    fields: Any = Field(examples=[{"passed": True, "voltage": 3.28}])
    created_at: str = Field(description="When the log was stored, UTC", examples=["2024-01-31 13:45:01.004211"])
    created_by: str | None = Field(description="The user whose token was used", examples=["jig-07"])
    modified_at: None = Field(description="Always null: logs are never changed")
    modified_by: None = Field(description="Always null: logs are never changed")


class FactoryLogPage(BaseModel):
    """A page of logs."""

    num_results: int = Field(description="The number of all records that `q` selects", examples=[1])
    total_pages: int = Field(examples=[1])
    page: int = Field(examples=[1])
    objects: list[FactoryLogOut]


class BatchCreated(BaseModel):
    """The result of a batch: the stored logs, and errors if some were skipped."""

    num_created: int = Field(examples=[2])
    first_id: int | None = Field(description="null if nothing was stored", examples=[41])
    last_id: int | None = Field(examples=[42])
    ids: list[int] = Field(description="In the order of the input", examples=[[41, 42]])
    num_rejected: int | None = Field(
        None, description="With `on_error=skip`: the number of records that were not stored"
    )
    errors: list[ErrorDetail] | None = Field(
        None, description="With `on_error=skip`: the errors of the first 100 of these records"
    )
