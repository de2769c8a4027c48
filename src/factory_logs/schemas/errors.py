"""The body of every error response (docs/reference/http-api.md#errors)."""

from pydantic import BaseModel, Field


class ErrorDetail(BaseModel):
    """One invalid field."""

    index: int | None = Field(None, description="The record's index in a batch, from 0")
    field: str = Field(examples=["product_imei"])
    message: str = Field(examples=["is required"])


class ErrorBody(BaseModel):
    """An error. `errors` is present only if fields are invalid."""

    message: str = Field(description="A description of the error for people", examples=["Validation failed"])
    errors: list[ErrorDetail] | None = None
    request_id: str = Field(
        description="The id of this request in the service's log, also in the header X-Request-ID",
        examples=["8876ce82a6a1c712"],
    )
