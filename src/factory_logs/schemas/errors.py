"""The body of every error response (docs/reference/http-api.md#errors)."""

from pydantic import BaseModel, Field


class ErrorDetail(BaseModel):
    """One invalid field."""

    index: int | None = Field(None, description="The record's index in a batch, from 0")
    field: str = Field(examples=["product_imei"])
    message: str = Field(examples=["is required"])


class ErrorBody(BaseModel):
    """The error; `errors` is present only if fields are invalid."""

    message: str = Field(description="What is wrong, for a person", examples=["Validation failed"])
    errors: list[ErrorDetail] | None = None
    request_id: str = Field(
        description="Names this request in the service's log; also in X-Request-ID", examples=["8876ce82a6a1c712"]
    )
