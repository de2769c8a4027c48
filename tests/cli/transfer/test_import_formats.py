"""Decoding the records of files, without a database."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from itertools import chain, count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_logs.cli.output import CommandError
from factory_logs.cli.transfer import import_formats
from factory_logs.cli.transfer.import_formats import CsvColumns, FileRecord, JsonRecord, records
from factory_logs.cli.transfer.input_files import Format
from factory_logs.errors import BadRequestError

COLUMNS = CsvColumns(["app_name", "timestamp", "tags", "fields"], ["jig_id", "line.no"], ["voltage"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(st.text(), JSON, max_size=4), max_size=6)


def in_chunks(data: bytes, sizes: Sequence[int] = (7,)) -> Iterator[bytes]:
    position = 0
    while position < len(data):
        size = sizes[position % len(sizes)]
        yield data[position : position + size]
        position += size


def read(file_format: Format, data: bytes, columns: CsvColumns = COLUMNS) -> list[FileRecord]:
    return list(records("f", file_format, in_chunks(data), columns))


@pytest.mark.slow
@given(OBJECTS, st.sampled_from([None, 1, "\t"]), st.booleans(), st.lists(st.integers(1, 50), min_size=1, max_size=3))
def test_an_array_is_cut_into_its_elements(
    objects: list[dict[str, Any]], indent: Any, is_ascii: bool, sizes: list[int]
) -> None:
    text = json.dumps(objects, indent=indent, ensure_ascii=is_ascii)
    found = list(records("f", Format.JSON, in_chunks(text.encode("utf-8", "replace"), sizes), COLUMNS))
    elements = [json.loads(record.json) for record in found if isinstance(record, JsonRecord)]
    assert elements == json.loads(text.encode("utf-8", "replace"))
    lines = text.encode("utf-8", "replace").decode().split("\n")
    assert all(lines[record.number - 1].lstrip(" \t[").startswith("{") for record in found)


@pytest.mark.slow
@given(OBJECTS)
def test_values_that_follow_each_other_are_records_too(objects: list[dict[str, Any]]) -> None:
    text = "\n".join(json.dumps(each, indent=2) for each in objects)
    assert [record.as_object() for record in read(Format.JSON, text.encode())] == objects


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1}, {"a": }]', "f:1: Expecting value"),
        ('[\n{"a": 1}\n{"a": 2}]', "f:3: expected , or ]"),
        ('[{"a": 1},\n', "f:2: the array has no end"),
        ('[{"a": 1}', "f:1: expected , or ]"),
        ('[{"a": 1}] x', "f:1: there is text after the array"),
        ('[{"a": "\n', "f:1: "),
        ("[" * 100_000, "f:1: arrays and objects nest too deep"),
    ],
)
def test_an_array_that_is_broken_is_an_error_with_its_line(text: str, message: str) -> None:
    with pytest.raises(CommandError) as broken:
        read(Format.JSON, text.encode())
    assert str(broken.value).startswith(message)


def test_a_value_over_the_limit_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_formats, "LONGEST_RECORD", 100_000)
    endless = iter([b'[{"a": "'])

    def chunks() -> Iterator[bytes]:
        yield from endless
        for _ in range(100):
            yield b"x" * 10_000
        pytest.fail("read on and on")

    with pytest.raises(CommandError, match="f:1: "):
        list(records("f", Format.JSON, chunks(), COLUMNS))


def test_a_line_over_the_limit_is_one_bad_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_formats, "LONGEST_RECORD", 100)
    good = b'{"a":"' + b"x" * 92 + b'"}\n'
    found = read(Format.NDJSON, good + b"y" * 450 + b"\n" + good)
    assert [record.number for record in found] == [1, 2, 3]
    assert found[0].as_object() == found[2].as_object()
    with pytest.raises(BadRequestError, match="over the limit of 100 bytes"):
        found[1].as_object()


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=5), st.sampled_from(",;\t"), st.sampled_from(["\r\n", "\n"]))
def test_csv_is_read_with_any_separator(rows: list[tuple[str, ...]], delimiter: str, line_end: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=line_end, quoting=csv.QUOTE_ALL)
    writer.writerow(["app_name", "tags.a", "line.no"])
    writer.writerows(rows)
    found = [record.as_object() for record in read(Format.CSV, text.getvalue().encode())]
    expected = []
    for app_name, first, second in rows:
        tags = {name: cell for name, cell in (("a", first), ("line.no", second)) if cell}
        expected.append(({"app_name": app_name} if app_name else {}) | ({"tags": tags} if tags else {}))
    assert found == expected


def test_flat_columns_named_by_an_option_are_tags_and_fields() -> None:
    (record,) = read(Format.CSV, b"app_name;jig_id;voltage;tags.serial\ntiger;07;3.28;0012\n")
    assert record.as_object() == {
        "app_name": "tiger", "tags": {"jig_id": "07", "serial": "0012"}, "fields": {"voltage": 3.28},
    }  # fmt: skip
    with pytest.raises(CommandError, match="f:1: 'colour' is not a known column; --tag-column or --field-column"):
        read(Format.CSV, b"app_name,colour\n")


@pytest.mark.parametrize(
    "text",
    [
        "fields.battery.voltage,fields.battery\n3.2,3.3\n",
        "fields.battery,fields.battery.voltage\n3.2,3.3\n",
        "tags.jig_id,jig_id\nJ-07,J-08\n",
        'tags,tags.jig_id\n"{""jig_id"": ""J-07""}",J-08\n',
    ],
)
def test_a_value_that_two_columns_contain_is_an_error(text: str) -> None:
    (record,) = read(Format.CSV, text.encode())
    with pytest.raises(BadRequestError):
        record.as_object()


def test_an_integer_of_thousands_of_digits_is_one_record() -> None:
    digits = "1" * 5000
    found = read(Format.JSON, f'[{{"fields": {digits}}}, {{"fields": 2}}]'.encode())
    assert [record.text for record in found] == [f'{{"fields": {digits}}}', '{"fields": 2}']


def test_a_file_of_rejected_records_has_comments_and_headers_of_its_own() -> None:
    mark = b"# PART " + b"0" * 64
    rows = (
        mark + b" 0\n# a.csv:2: why\napp_name,voltage\n# c,1\nx,2\n# END OF PART " + b"0" * 64 + b" 0\n"
        + mark + b' 1\n# b.csv:9: why\nfields.a;app_name\n1;"two\n# lines"\n'
    )  # fmt: skip
    assert [record.as_object() for record in read(Format.CSV, rows)] == [
        {"app_name": "x", "fields": {"voltage": 2}},
        {"app_name": "two\n# lines", "fields": {"a": 1}},
    ]
    for file_format in (Format.NDJSON, Format.JSON):
        found = read(file_format, mark + b' 0\n# a:1: why\n{"a":1}\n# a:2: why\n{"a":2}\n')
        assert [record.as_object() for record in found] == [{"a": 1}, {"a": 2}]
    assert len(read(Format.NDJSON, b'{"a":1}\n# no comment here\n')) == 2


def test_an_endless_line_of_csv_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_formats, "LONGEST_RECORD", 1000)
    longest = b"app_name,fields\na," + b"1" * 997 + b"\nb,1\n"
    assert [len(record.text) for record in read(Format.CSV, longest)] == [999, 3]
    endless = chain([b"app_name,fields\na,"], (b",x" * 50 for _ in count()))
    with pytest.raises(CommandError, match="f: a line is longer than 1000 characters"):
        list(records("f", Format.CSV, endless, COLUMNS))
