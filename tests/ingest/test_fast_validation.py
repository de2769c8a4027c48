"""The fast validation gives the result of the Pydantic schema or declines, for any text and at every limit."""

import json
from datetime import datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from factory_logs.errors import BadRequestError
from factory_logs.ingest import batch_decoder, fast_validation
from factory_logs.ingest.batch_collector import Batch, BatchLimits, read_parts
from factory_logs.ingest.batch_decoder import BatchReader, NdjsonReader
from factory_logs.ingest.fast_validation import decode_json, fast_log_from_text, fast_logs
from factory_logs.ingest.validation import NewLog, parse_log
from factory_logs.schemas import timestamps
from factory_logs.schemas.record_limits import OTHER_MEMBERS_BYTES, RecordLimits
from tests.ingest.strategies import GOOD, RECORDS, object_of

LIMITS = RecordLimits(max_record_bytes=256 * 1024, max_nesting=32)
SMALL = RecordLimits(max_record_bytes=OTHER_MEMBERS_BYTES + 100, max_nesting=3)


@pytest.fixture(autouse=True, scope="module")
def _clock_that_stands_still():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timestamps, "server_time", lambda: datetime(2024, 1, 31, 13, 45))
        yield


def by_schema(text: bytes, limits: RecordLimits) -> NewLog | None:
    try:
        return parse_log(text, limits)
    except BadRequestError:
        return None


def many_at_once(texts: list[bytes], limits: RecordLimits) -> list[NewLog] | None:
    logs = fast_logs(list(map(decode_json, texts)), limits)
    return None if logs is None else list(logs)


@pytest.mark.slow
@pytest.mark.parametrize("limits", [LIMITS, SMALL], ids=["usual", "small"])
@given(text=RECORDS)
@example(text='{"app_name":"a","timestamp":1,"tags":1e400}')
@example(text='{"app_name":"a","timestamp":1,"created_at":' + "[" * 300 + "]" * 300 + "}")
@example(text='{"app_name":"a","timestamp":1,"tags":' + "[" * 300 + "]" * 300 + "}")
@example(text='{"app_name":"a","timestamp":1,"tags":' + "[" * 2000 + "]" * 2000 + "}")
@example(text='{"app_name":"a","timestamp":1,"fields":"' + "x" * 98 + '"}')
@example(text='{"app_name":"a","timestamp":1,"fields":"' + "x" * 99 + '"}')
@example(text='{"app_name":"a","timestamp":1,"fields":"' + "x" * 2000 + '"}')
def test_fast_validation_returns_the_same_as_the_schema(text: str, limits: RecordLimits) -> None:
    by_the_schema = by_schema(text.encode(), limits)
    assert fast_log_from_text(text.encode(), limits) in (None, by_the_schema)
    assert many_at_once([text.encode()], limits) in (None, [by_the_schema])


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


@pytest.mark.slow
@given(ORDINARY, ORDINARY)
def test_an_ordinary_log_is_read_by_fast_validation(tags: object, fields: object) -> None:
    record = {
        "app_name": "a", "product_imei": "352099001761481", "repair_id": 7, "timestamp": "2024-01-31T13:45:00Z",
        "tags": tags, "fields": fields, "factory_log_id": 12, "created_by": "jig",
    }  # fmt: skip
    text = json.dumps(record).encode()
    assert fast_log_from_text(text, LIMITS) == parse_log(text, LIMITS)
    assert many_at_once([text] * 2, LIMITS) == [parse_log(text, LIMITS)] * 2


@pytest.mark.parametrize("depth", [32, 33])
def test_nesting_at_the_limit_is_the_same_as_in_the_schema(depth: int) -> None:
    text = object_of([*GOOD, ("tags", "[" * depth + "]" * depth)]).encode()
    assert (fast_log_from_text(text, LIMITS) is None) == (depth > 32)
    assert (fast_logs([decode_json(text)], LIMITS) is None) == (depth > 32)


def test_digits_of_other_scripts_are_left_to_the_schema() -> None:
    text = json.dumps({"app_name": "a", "timestamp": 1, "product_imei": "\u0661" * 15}).encode()
    assert fast_log_from_text(text, LIMITS) is None
    assert fast_logs([decode_json(text)], LIMITS) is None


async def whole_array(texts: list[str], reader: BatchReader) -> None:
    await reader.read_array(("[" + ",".join(texts) + "]").encode())


async def lines(texts: list[str], reader: BatchReader) -> None:
    async def pieces():
        yield "\n".join(texts).encode()

    async for _ in read_parts(pieces(), NdjsonReader(reader)):
        pass


async def outcome(read, texts: list[str], limits: RecordLimits) -> Batch | str:
    """Return the decoded batch, in either format, or the error of the whole batch."""
    reader = BatchReader(limits, BatchLimits())
    taken: list[Batch] = []
    reader_take = reader.take
    reader.take = lambda: taken.append(reader_take()) or taken[-1]  # type: ignore[method-assign]
    try:
        await read(texts, reader)
    except BadRequestError as error:
        return error.message
    return taken[0] if taken else reader_take()


@pytest.mark.slow
@pytest.mark.parametrize("read", [whole_array, lines])
@pytest.mark.parametrize("limits", [LIMITS, SMALL], ids=["usual", "small"])
@given(texts=st.lists(RECORDS.filter(lambda text: "\n" not in text), max_size=4))
async def test_a_batch_has_the_same_rows_positions_and_errors_as_by_the_schema(
    texts: list[str], limits: RecordLimits, read
) -> None:
    quick = await outcome(read, texts, limits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_decoder, "fast_logs", lambda records, limits: None)
        patch.setattr(fast_validation, "fast_log_from_text", lambda text, limits: None)
        assert quick == await outcome(read, texts, limits)


async def test_a_good_array_is_validated_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_decoder, "_LOGS", None)
    reader = BatchReader(LIMITS, BatchLimits())
    await reader.read_array(b"[" + b",".join([object_of(GOOD).encode()] * 1200) + b"]")
    batch = reader.take()
    assert (len(batch.logs), list(batch.positions)) == (1200, list(range(1200)))
