"""The responses of the calls that aggregate logs: stats, test results, the catalog, a unit's history
(docs/reference/test-results.md)."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from factory_logs.schemas.repair import RepairOut

Share = Annotated[float, Field(ge=0, le=1, examples=[0.96])]
Count = Annotated[int, Field(ge=0)]
_GROUP = ConfigDict(extra="allow")
"""Each field in `by` is an additional member with the name of the field."""


class YieldCounts(BaseModel):
    """The counts of attempts, and of pairs of a unit and an app."""

    attempts: Count = Field(description="Logs with a boolean at `passed`", examples=[104])
    passed: Count = Field(description="Attempts that passed", examples=[100])
    units: Count = Field(
        description="Pairs of a unit and an app, counted in the bucket and group of their first attempt", examples=[101]
    )
    first_passed: Count = Field(description="Pairs whose first attempt has passed", examples=[97])
    last_passed: Count = Field(description="Pairs whose last attempt has passed", examples=[100])
    retested: Count = Field(description="Pairs with two attempts or more", examples=[3])
    attempt_yield: Share | None = Field(description="passed / attempts; null without attempts")
    first_pass_yield: Share | None = Field(description="first_passed / units; null without units")
    final_yield: Share | None = Field(description="last_passed / units; null without units")


class YieldBucket(YieldCounts):
    """A time bucket and group. The value of each `by` is also a member."""

    model_config = _GROUP
    bucket: str | None = Field(
        default=None, description="When the bucket begins, UTC; only with `bucket`", examples=["2024-01-31 00:00:00"]
    )


class YieldTotal(YieldCounts):
    """The counts over all logs that `q` selects."""

    rolled_throughput_yield: Share | None = Field(description="The product of the apps' first-pass yields")


class Yields(BaseModel):
    """The yields of each bucket and group, and over all of them."""

    buckets: list[YieldBucket]
    total: YieldTotal


class Failure(BaseModel):
    """A measurement, and the number of attempts that failed at it."""

    measurement: str | None = Field(
        description="The path of the measurement; null for attempts without a failed measurement",
        examples=["fields__output_12v"],
    )
    attempts: Count = Field(description="The number of failed attempts with this measurement", examples=[14])
    units: Count = Field(description="The number of pairs of a unit and an app with this measurement", examples=[12])
    share: Share = Field(description="The share of the failed attempts")
    cumulative_share: Share = Field(description="The share of the sum of all rows, up to this row")


class Failures(BaseModel):
    """The failures, the most frequent first."""

    failed_attempts: Count = Field(examples=[28])
    failures: list[Failure]


class Bin(BaseModel):
    """One bin of a histogram. It includes its lower edge but not its upper one, except for the last bin."""

    model_config = ConfigDict(populate_by_name=True)
    lower_edge: float = Field(alias="from", examples=[11.2])
    upper_edge: float = Field(alias="to", examples=[11.25])
    count: Count = Field(examples=[7])


class Distribution(BaseModel):
    """The distribution of one group. The value of each `by` is also a member."""

    model_config = _GROUP
    count: Count = Field(examples=[1140])
    mean: float = Field(examples=[12.03])
    stddev: float | None = Field(
        description="The sample standard deviation; null for a single number", examples=[0.081]
    )
    min: float = Field(examples=[11.2])
    max: float = Field(examples=[12.31])
    p1: float = Field(description="Percentiles are of the nearest rank", examples=[11.5])
    p5: float = Field(examples=[11.9])
    p25: float = Field(examples=[11.98])
    p50: float = Field(examples=[12.03])
    p75: float = Field(examples=[12.08])
    p95: float = Field(examples=[12.16])
    p99: float = Field(examples=[12.21])
    histogram: list[Bin] = Field(
        description="All groups have the same bins; there is one bin if all numbers are the same"
    )
    below: Count | None = Field(description="The number of numbers below `lower`; null without `lower`", examples=[2])
    above: Count | None = Field(description="The number of numbers above `upper`; null without `upper`", examples=[0])
    cp: float | None = Field(description="(upper - lower) / 6 of the mean moving range / 1.128", examples=[2.4])
    cpk: float | None = Field(
        description="The distance of the mean to the nearer limit / 3 of the same", examples=[2.1]
    )
    pp: float | None = Field(description="Like cp, but with `stddev`", examples=[2.3])
    ppk: float | None = Field(description="Like cpk, but with `stddev`", examples=[2.0])


class Distributions(BaseModel):
    """The distributions of all groups that have numbers."""

    groups: list[Distribution]


class FacetValue(BaseModel):
    """A value, and the number of logs with it."""

    value: Any = Field(examples=["J-07"])
    count: Count = Field(examples=[146])


class Facet(BaseModel):
    """The values of one field."""

    values: list[FacetValue] = Field(description="The most frequent value first, then by value")
    other: Count = Field(description="The number of logs with another value", examples=[12])
    missing: Count = Field(description="The number of logs without a value", examples=[0])


class Facets(BaseModel):
    """The facets by field name."""

    facets: dict[str, Facet] = Field(
        examples=[{"tags__jig_id": {"values": [{"value": "J-07", "count": 146}], "other": 12, "missing": 0}}]
    )


class CatalogPath(BaseModel):
    """A JSON path at which logs have scalars or arrays."""

    path: str = Field(description="The path in the form of `q`", examples=["fields__output_12v__value"])
    types: list[str] = Field(
        description="The JSON types of the values at this path, in alphabetical order", examples=[["number"]]
    )


class CatalogApp(BaseModel):
    """An app, and the JSON paths in its logs."""

    app_name: str = Field(examples=["tiger_test_jig_production"])
    logs: Count = Field(examples=[1140])
    first: str = Field(description="The earliest `timestamp`", examples=["2024-01-29 00:03:08.832000"])
    last: str = Field(description="The latest `timestamp`", examples=["2024-01-31 13:59:02.100000"])
    tags: list[CatalogPath]
    fields: list[CatalogPath]


class Catalog(BaseModel):
    """The apps in alphabetical order."""

    apps: list[CatalogApp]


class UnitApp(BaseModel):
    """The logs of one app about a unit."""

    app_name: str = Field(examples=["tiger_test_jig_production"])
    logs: Count = Field(examples=[2])
    attempts: Count = Field(description="Logs with a boolean at `fields__passed`", examples=[2])
    passed: Count = Field(examples=[1])
    first: str = Field(examples=["2024-01-31 08:12:41.331000"])
    last: str = Field(examples=["2024-01-31 09:01:10.004000"])
    last_passed: bool | None = Field(
        description="Whether the last attempt passed; null without an attempt", examples=[True]
    )


class Unit(BaseModel):
    """The history of one unit: its apps in the order of their first log, and its repairs in the order of arrival."""

    product_imei: str = Field(examples=["352099001761481"])
    logs: Count = Field(examples=[2])
    first: str | None = Field(description="Null without logs", examples=["2024-01-31 08:12:41.331000"])
    last: str | None = Field(examples=["2024-01-31 09:01:10.004000"])
    apps: list[UnitApp]
    repairs: list[RepairOut]


class Measures(BaseModel):
    """The measures of the numbers in a group; null if there are none."""

    count: int = Field(description="The number of logs with a number at this field", examples=[11])
    min: float | None = Field(examples=[3.1])
    avg: float | None = Field(examples=[3.254])
    max: float | None = Field(examples=[3.41])
    p50: float | None = Field(examples=[3.26])
    p95: float | None = Field(examples=[3.4])


class StatsBucket(BaseModel):
    """A time bucket and group. The value of each `by` is also a member."""

    model_config = ConfigDict(extra="allow")
    bucket: str | None = Field(
        default=None, description="When the bucket begins, UTC; only with `bucket`", examples=["2024-01-01 00:00:00"]
    )
    count: int = Field(description="The number of logs in this bucket and group", examples=[12])
    values: dict[str, Measures] | None = Field(default=None, description="The measures of each `field`, by its name")


class StatsResult(BaseModel):
    """The list of buckets and groups; a bucket without logs is not included."""

    buckets: list[StatsBucket]
