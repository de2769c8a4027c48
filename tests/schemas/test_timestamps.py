import contextlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_logs.schemas import timestamps
from factory_logs.schemas.timestamps import format_timestamp, parse_timestamp, parse_timestamps, sent_timestamp


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("2024-01-31T13:45:00", "2024-01-31 13:45:00"),
        ("2024-01-31 13:45:00", "2024-01-31 13:45:00"),
        ("2024-01-31 13:45", "2024-01-31 13:45:00"),
        ("2024-01-31", "2024-01-31 00:00:00"),
        ("2024-01-31T13:45:00.5", "2024-01-31 13:45:00.500000"),
        ("2024-01-31T13:45:00.123456789Z", "2024-01-31 13:45:00.123456"),
        ("2024-01-31 13:45:00,123", "2024-01-31 13:45:00.123000"),
        ("2024-01-31T13:45:00,123456789+01:00", "2024-01-31 12:45:00.123456"),
        ("2024-01-31T13:45:00.000000999Z", "2024-01-31 13:45:00"),
        ("2024-01-31T13:45:00+02:00", "2024-01-31 11:45:00"),
        ("2024-01-31T13:45:00-0530", "2024-01-31 19:15:00"),
        ("2024-02-29t13:45:00z", "2024-02-29 13:45:00"),
        (0, "1970-01-01 00:00:00"),
        (1706708700123, "2024-01-31 13:45:00.123000"),
        (-1, "1969-12-31 23:59:59.999000"),
    ],
)
def test_every_documented_form_is_read_as_utc(sent: object, stored: str) -> None:
    assert format_timestamp(parse_timestamp(sent)) == stored


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "yesterday",
        "2024-02-30",
        "2024-01-31T24:00:00",
        "2024-01-31T13:45:00.1234567890",
        "2024-01-31T13:45:00,1234567890",
        "2024-01-31T13:45:00,",
        "2024-01-31T13:45:00,1.1",
        "CURRENT_TIMESTAMP",
        "2024-01-31T13:45:00 Europe/Vienna",
        "2024-W05-3",
        "20240131T134500",
        "٢٠٢٤-01-31",
        "1706708700123",
        "0001-01-01T00:00:00+01:00",
        "2024-01-31T13:45:00+25:00",
        10**17,
        -(10**17),
        10**400,
        1706708700.5,
        True,
        None,
        ["2024-01-31"],
    ],
)
def test_any_other_value_is_refused_with_the_expected_format(sent: object) -> None:
    with pytest.raises(ValueError, match=r"expected an ISO 8601 datetime|years 1 to 9999"):
        parse_timestamp(sent)


@given(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 12, 31)), st.integers(-23, 23))
def test_a_written_datetime_reads_back_as_the_same_time_in_any_zone(moment: datetime, hours: int) -> None:
    zoned = moment.replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=hours)))
    assert parse_timestamp(zoned.isoformat()) == parse_timestamp(format_timestamp(moment)) == moment


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    with contextlib.suppress(ValueError):
        parse_timestamp(text)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ("2024-01-31T13:45:00+24:00", "a zone is less than 24 hours away from UTC"),
        ("0001-01-01T00:00:00+01:00", "in UTC this is not in the years 1 to 9999"),
        ("9999-12-31T23:59:59-01:00", "in UTC this is not in the years 1 to 9999"),
        ("2024-02-30", "day is out of range for month"),
        ("2024-01-31T25:00:00", "hour must be in 0..23"),
        (253402300800000, "not in the years 1 to 9999"),
        (-62135596800001, "not in the years 1 to 9999"),
    ],
)
def test_a_datetime_that_does_not_exist_is_refused_with_a_clear_message(sent: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refusal:
        parse_timestamp(sent)
    assert "timedelta" not in str(refusal.value)


def test_the_first_and_the_last_datetime_can_be_stored() -> None:
    assert parse_timestamp("0001-01-01T01:00:00+01:00") == parse_timestamp(-62135596800000) == datetime.min
    assert parse_timestamp("9999-12-31T22:59:59.999999999-01:00") == datetime.max


@pytest.mark.parametrize("number", [1706708700123.0, 0.0, -1.0, 2.0**40])
def test_a_number_without_a_fraction_is_an_integer_however_it_is_written(number: float) -> None:
    assert parse_timestamp(number) == parse_timestamp(int(number))


@pytest.mark.parametrize("number", [0.5, 1e308, float("inf"), float("nan")])
def test_any_other_float_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match=r"expected an ISO 8601 datetime|years 1 to 9999"):
        parse_timestamp(number)


TEXTS = (
    st.datetimes().map(lambda moment: f"{moment.isoformat()}Z")
    | st.from_regex(r"[0-3][0-9]{3}-[01][0-9]-[0-3][0-9][T ][0-3][0-9]:[0-6][0-9](:[0-6][0-9]([.,][0-9]{1,10})?)?Z?\n?")
    | st.sampled_from(
        ["", "Z", "2024-W05-3T13:45:00Z", "2024-01-31T134500.1Z", "2024-01-31T13:45:00,1Z", "2024-01-31T13:45:00ZZ",
         "2024-01-31T13:45Z\n2024-01-31T13:45Z", "２024-01-31T13:45:00Z", "2024-01-31T13:45:00+01:00", "2024-01-31"]
    )
)  # fmt: skip


def test_a_timestamp_may_be_the_servers_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timestamps, "server_time", lambda: datetime(2024, 1, 31, 13, 45))
    assert sent_timestamp("CURRENT_TIMESTAMP") == datetime(2024, 1, 31, 13, 45)
    with pytest.raises(ValueError, match="expected an ISO 8601 datetime"):
        sent_timestamp("current_timestamp")


@given(st.lists(TEXTS, max_size=4))
def test_many_datetimes_are_read_like_single_ones(texts: list[str]) -> None:
    def outcome(read) -> object:
        try:
            return read()
        except ValueError as error:
            return str(error)

    assert outcome(lambda: parse_timestamps(texts)) == outcome(lambda: list(map(parse_timestamp, texts)))
