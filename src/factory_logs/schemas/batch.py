"""The answer of a batch write: the outside shape (SPEC 7)."""

from pydantic import BaseModel, Field

from factory_logs.schemas.errors import FieldFault


class BatchCreated(BaseModel):
    """What became of a batch."""

    num_created: int = Field(examples=[2])
    first_id: int | None = Field(description="null where nothing was stored", examples=[41])
    last_id: int | None = Field(examples=[42])
    ids: list[int] = Field(description="In the order of the input", examples=[[41, 42]])
    num_rejected: int | None = Field(None, description="With `on_error=skip`: how many records are not stored")
    errors: list[FieldFault] | None = Field(None, description="With `on_error=skip`: why, for the first 100 of them")
