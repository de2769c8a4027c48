"""What InfluxDB's clients are answered (SPEC 8)."""

from pydantic import BaseModel, Field


class InfluxError1(BaseModel):
    """An error as InfluxDB 1.x has it."""

    error: str = Field(examples=["partial write: line 2: unable to parse 'm f=': missing field value dropped=1"])


class InfluxError2(BaseModel):
    """An error as InfluxDB 2.x has it."""

    code: str = Field(examples=["invalid"])
    message: str = Field(examples=["partial write: line 2: unable to parse 'm f=': missing field value dropped=1"])
    line: int | None = Field(None, description="The first bad line, from 1", examples=[2])


class InfluxHealth(BaseModel):
    """Whether points can be stored."""

    name: str = Field(examples=["influxdb"])
    message: str = Field(examples=["ready for queries and writes"])
    status: str = Field(examples=["pass"])
    version: str = Field(examples=["1.8.10"])
    checks: list[object]


class InfluxVersion(BaseModel):
    """The version that is emulated."""

    version: str = Field(examples=["1.8.10"])


class InfluxResults(BaseModel):
    """The answer to a statement."""

    results: list[dict[str, object]] = Field(examples=[[{"statement_id": 0}]])
