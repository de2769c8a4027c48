"""Generate points and their line protocol from the reference grammar, independently of the parser."""

from dataclasses import dataclass

from hypothesis import strategies as st

from factory_logs.influxdb.mapping import COLUMNS_OF_LOGS

TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\0"), min_size=1, max_size=12
) | st.text(st.sampled_from('abc=, "\\#é'), min_size=1, max_size=8)
# A trailing backslash would escape what follows it: InfluxDB has no way to write such a name.
FIELD_NAMES = TEXT.filter(lambda name: not name.endswith("\\") and '\\"' not in name)
NAMES = TEXT.filter(lambda name: not name.endswith("\\"))
# InfluxDB skips tabs before a line, and has no way to escape one.
MEASUREMENTS = NAMES.filter(lambda name: not name.startswith(("#", "\t")) and "\\=" not in name and '\\"' not in name)
STRINGS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20) | st.text(
    st.sampled_from('ab\\",= \n\r'), max_size=12
)
TIMES = st.integers(-(2**63) + 2, 2**63 - 2)


@dataclass(frozen=True)
class Unsigned:
    number: int


VALUES = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.integers(0, 2**64 - 1).map(Unsigned)
    | st.floats(allow_nan=False, allow_infinity=False)
    | STRINGS
)


@dataclass(frozen=True)
class Point:
    measurement: str
    tags: dict[str, str]
    fields: dict[str, object]
    time: int | None

    def line(self) -> str:
        head = escaped(self.measurement, ", ")
        for key, value in self.tags.items():
            head += f",{escaped(key)}={escaped(value)}"
        fields = ",".join(f"{escaped(key)}={written(value)}" for key, value in self.fields.items())
        return f"{head} {fields}" + ("" if self.time is None else f" {self.time}")

    @property
    def plain_fields(self) -> dict[str, object]:
        return {key: value.number if isinstance(value, Unsigned) else value for key, value in self.fields.items()}

    @property
    def stored_fields(self) -> dict[str, object]:
        """JSON in PostgreSQL has one zero."""
        return {
            key: 0.0 if value == 0.0 and isinstance(value, float) else value for key, value in self.plain_fields.items()
        }


POINTS = st.builds(
    Point,
    MEASUREMENTS,
    st.dictionaries(NAMES, NAMES, max_size=3),
    st.dictionaries(FIELD_NAMES, VALUES, min_size=1, max_size=4),
    st.none() | TIMES,
)

# Hypothesis also tries words from the source code.
STORABLE_POINTS = POINTS.filter(
    lambda point: COLUMNS_OF_LOGS.isdisjoint(point.fields) and not {"product_imei", "repair_id"} & point.tags.keys()
)


def escaped(name: str, special: str = ",= ") -> str:
    return "".join(f"\\{character}" if character in special else character for character in name)


def written(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value}i"
    if isinstance(value, Unsigned):
        return f"{value.number}u"
    if isinstance(value, float):
        return repr(value)
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
