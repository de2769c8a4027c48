"""The one body of every error (SPEC 3)."""

from pydantic import BaseModel, Field


class FieldFault(BaseModel):
    """One field at fault."""

    index: int | None = Field(None, description="The record's place in a batch, from 0")
    field: str = Field(examples=["product_imei"])
    message: str = Field(examples=["expected exactly 15 digits"])


class ErrorBody(BaseModel):
    """What went wrong; `errors` only where fields are at fault."""

    message: str = Field(description="What is wrong, for a person", examples=["Validation failed"])
    errors: list[FieldFault] | None = None
    request_id: str = Field(
        description="Names this request in the service's log; also in X-Request-ID", examples=["8876ce82a6a1c712"]
    )
