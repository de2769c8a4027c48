"""The quick reading gives what the Pydantic schema gives, or declines: on any text, at every edge."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from factory_logs.errors import BadRequestError
from factory_logs.ingest import batch_reading, quick_reading
from factory_logs.ingest.batch import Batch
from factory_logs.ingest.batch_reading import BatchReader, read_ndjson
from factory_logs.ingest.quick_columns import quick_logs
from factory_logs.ingest.quick_reading import quickly_decoded, quickly_read
from factory_logs.ingest.records import Limits, NewLog, parse_log
from factory_logs.schemas.storable import ROOM

LIMITS = Limits(max_record_bytes=256 * 1024, max_nesting=32)
SMALL = Limits(max_record_bytes=ROOM + 100, max_nesting=3)

# JSON as text, not as values: what is decoded differently by two parsers is in the spelling.
SPELLED = st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
NUMBERS = SPELLED | st.sampled_from(
    ["-0", "-0.0", "0e0", "1e15", "999999999999999.9", "1e16", "1e23", "1E400", "1e-400", "1.10", "5e-324", "NaN",
     "-Infinity", "9223372036854775807", "-9223372036854775808", "-9223372036854775809", "18446744073709551615",
     "18446744073709551616", "01", "+1", ".5"]
)  # fmt: skip
PIECES = st.sampled_from(
    ["a", "é", "\\u00e9", "\\u0000", "\\\\u0000", "\\ud83d\\ude00", "\\ud800", "\\udc00", "😀", "-0.0", "1e1", "7e+3",
     "3e5f", "\\n", '\\"', "null", "{[", "\\x", "\x00", "\x7f"]
)  # fmt: skip
STRINGS = st.lists(PIECES, max_size=3).map(lambda pieces: f'"{"".join(pieces)}"')
SCALARS = st.sampled_from(["null", "true", "false"]) | NUMBERS | STRINGS
DEEP = st.integers(1, 40).map(lambda depth: "[" * depth + "]" * depth)


def objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Objects whose keys may occur twice."""
    pairs = st.lists(st.tuples(STRINGS, values), max_size=3)
    return pairs.map(lambda members: "{" + ", ".join(f"{key}: {value}" for key, value in members) + "}")


VALUES = st.recursive(
    SCALARS | DEEP,
    lambda inner: objects(inner) | st.lists(inner, max_size=3).map(lambda items: "[" + ",".join(items) + "]"),
    max_leaves=6,
)
MEMBERS = {
    "app_name": st.sampled_from(['"a"', '"\\u0000"', '""', f'"{"é" * 255}"', f'"{"é" * 256}"', "1", "null"]),
    "product_imei": st.sampled_from(
        ['"352099001761481"', '"35209900176148"', '"١٢٣٤٥٦٧٨٩٠١٢٣٤٥"', '"35209900176148²"', "352099001761481", "null"]
    ),
    "repair_id": st.sampled_from(["null", "1", "1.0", "true", '"1"', "-9223372036854775809", "18446744073709551616"]),
    "timestamp": NUMBERS
    | st.sampled_from(
        ['"2024-01-31T13:45:00.123Z"', '"2024-01-31 13:45:00+02:00"', '"2024-02-29z"', '"2024-02-30"', "true", "null",
         '"0001-01-01T00:00:00+01:00"', '"2024-01-31"', '"２024-01-31"']
    ),
    "tags": VALUES,
    "fields": VALUES,
    "created_at": VALUES,
    "factory_log_id": VALUES,
    "colour": VALUES,
}  # fmt: skip
GOOD = [("app_name", '"a"'), ("timestamp", "1706708700123")]


def object_of(members: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f'"{name}":{value}' for name, value in members) + "}"


A_MEMBER = st.sampled_from(sorted(MEMBERS)).flatmap(lambda name: st.tuples(st.just(name), MEMBERS[name]))
RECORDS = st.lists(A_MEMBER, max_size=4).map(lambda members: object_of(GOOD + members)) | VALUES


def by_schema(text: bytes, limits: Limits) -> NewLog | None:
    try:
        return parse_log(text, limits)
    except BadRequestError:
        return None


@pytest.mark.parametrize("limits", [LIMITS, SMALL], ids=["usual", "small"])
@given(text=RECORDS)
@example(text='{"app_name":"a","timestamp":1,"tags":1e400}')
@example(text='{"app_name":"a","timestamp":1,"created_at":' + "[" * 300 + "]" * 300 + "}")
@example(text='{"app_name":"a","timestamp":1,"tags":' + "[" * 300 + "]" * 300 + "}")
@example(text='{"app_name":"a","timestamp":1,"tags":' + "[" * 2000 + "]" * 2000 + "}")
@example(text='{"app_name":"a","timestamp":1,"fields":"' + "x" * 98 + '"}')
@example(text='{"app_name":"a","timestamp":1,"fields":"' + "x" * 99 + '"}')
@example(text='{"app_name":"a","timestamp":1,"fields":"' + "x" * 2000 + '"}')
def test_what_is_read_quickly_is_what_the_schema_gives(text: str, limits: Limits) -> None:
    by_the_schema = by_schema(text.encode(), limits)
    assert quickly_read(text.encode(), limits) in (None, by_the_schema)
    assert quick_logs([quickly_decoded(text.encode())], limits) in (None, [by_the_schema])


ORDINARY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(-1e15, 1e15, exclude_min=True, exclude_max=True).filter(lambda number: number != 0)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
    | st.sampled_from(["1e16", "-0.0", "3e5f"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(ORDINARY, ORDINARY)
def test_an_ordinary_log_is_read_quickly(tags: object, fields: object) -> None:
    record = {
        "app_name": "a", "product_imei": "352099001761481", "repair_id": 7, "timestamp": "2024-01-31T13:45:00Z",
        "tags": tags, "fields": fields, "factory_log_id": 12, "created_by": "jig",
    }  # fmt: skip
    text = json.dumps(record).encode()
    assert quickly_read(text, LIMITS) == parse_log(text, LIMITS)
    assert quick_logs([quickly_decoded(text)] * 2, LIMITS) == [parse_log(text, LIMITS)] * 2


@pytest.mark.parametrize("depth", [32, 33])
def test_nesting_is_the_same_at_its_limit(depth: int) -> None:
    text = object_of([*GOOD, ("tags", "[" * depth + "]" * depth)]).encode()
    assert (quickly_read(text, LIMITS) is None) == (depth > 32)
    assert (quick_logs([quickly_decoded(text)], LIMITS) is None) == (depth > 32)


async def whole_array(texts: list[str], reader: BatchReader) -> None:
    await reader.read_array(("[" + ",".join(texts) + "]").encode())


async def lines(texts: list[str], reader: BatchReader) -> None:
    async def pieces():
        yield "\n".join(texts).encode()

    async for _ in read_ndjson(pieces(), reader, 10**9):
        pass


async def outcome(read, texts: list[str], limits: Limits) -> Batch | str:
    """What is read of a batch, in either form, or the error of all of it."""
    reader = BatchReader(limits, 100)
    taken: list[Batch] = []
    reader_take = reader.take
    reader.take = lambda: taken.append(reader_take()) or taken[-1]  # type: ignore[method-assign]
    try:
        await read(texts, reader)
    except BadRequestError as error:
        return error.message
    return taken[0] if taken else reader_take()


@pytest.mark.parametrize("read", [whole_array, lines])
@pytest.mark.parametrize("limits", [LIMITS, SMALL], ids=["usual", "small"])
@given(texts=st.lists(RECORDS.filter(lambda text: "\n" not in text), max_size=4))
async def test_a_batch_has_the_rows_the_places_and_the_errors_that_the_schema_gives(
    texts: list[str], limits: Limits, read
) -> None:
    quick = await outcome(read, texts, limits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_reading, "quick_logs", lambda records, limits: None)
        patch.setattr(quick_reading, "quickly_read", lambda text, limits: None)
        assert quick == await outcome(read, texts, limits)


async def test_a_good_array_needs_no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_reading, "_LOGS", None)
    reader = BatchReader(LIMITS, 100)
    await reader.read_array(b"[" + b",".join([object_of(GOOD).encode()] * 1200) + b"]")
    batch = reader.take()
    assert (len(batch.logs), list(batch.places)) == (1200, list(range(1200)))
