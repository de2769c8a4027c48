"""Opening and decompressing files, without a database."""

import gzip
import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from factory_logs.cli.output import CommandError
from factory_logs.cli.transfer.input_files import ChunkStream, Format, input_format, opened, suffixes

TEXT = b"".join(b"%d\n" % number for number in range(100_000))
ZSTD = zstandard.ZstdCompressor()
Pack = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.ndjson", lambda text: text),
        ("a.ndjson.gz", gzip.compress),
        ("a.ndjson.GZ", lambda text: gzip.compress(text[:1000]) + gzip.compress(text[1000:])),
        ("a.ndjson.zst", ZSTD.compress),
        ("a.ndjson.zst", lambda text: ZSTD.compress(text[:1000]) + ZSTD.compress(text[1000:])),
        ("a.ndjson.zst", lambda text: zstandard.ZstdCompressor(level=22).compress(text)),
        ("a.ndjson", lambda text: b"\xef\xbb\xbf" + text),
        ("a.ndjson.zst", lambda text: ZSTD.compress(b"\xef\xbb\xbf" + text)),
    ],
)
def test_a_compressed_file_is_read_decompressed(tmp_path: Path, name: str, pack: Pack) -> None:
    data = pack(TEXT)
    (tmp_path / name).write_bytes(data)
    with opened(str(tmp_path / name), None) as file:
        assert b"".join(file.chunks()) == TEXT
        assert b"".join(file.chunks()) == TEXT
        assert file.size == len(data)


def test_bytes_appended_meanwhile_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(TEXT)
    with opened(str(path), None) as file:
        with path.open("ab") as growing:
            growing.write(b"more\n")
        assert b"".join(file.chunks()) == TEXT


@pytest.mark.parametrize(("name", "data"), [("a.ndjson", TEXT), ("a.ndjson.gz", gzip.compress(TEXT))])
def test_a_pipe_can_be_read_twice_like_a_file(tmp_path: Path, name: str, data: bytes) -> None:
    pipe = tmp_path / name
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(pipe.write_bytes, data)
        with opened(str(pipe), None) as file:
            assert b"".join(file.chunks()) == TEXT
            assert b"".join(file.chunks()) == TEXT
        assert writing.result(10) == len(data)


@pytest.mark.parametrize("name", ["none.csv", "folder.csv"])
def test_a_path_that_is_not_a_file_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(CommandError, match=rf"{name}: (No such file|Is a) "), opened(str(tmp_path / name), None):
        pass


@pytest.mark.parametrize(("name", "data"), [("a.csv.gz", gzip.compress(TEXT)), ("a.csv.zst", ZSTD.compress(TEXT))])
def test_a_truncated_or_damaged_compressed_file_is_an_error(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    for broken in (data[:-1], data[: len(data) // 2], data[:3], b"plain text", data + b"more"):
        path.write_bytes(broken)
        with opened(str(path), None) as file, pytest.raises(CommandError, match="data is damaged or truncated"):
            list(file.chunks())


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.ndjson", Format.NDJSON), ("A.JSONL", Format.NDJSON), ("a.json.gz", Format.JSON), ("a.csv.zst", Format.CSV),
        ("a.b.lp", Format.LINE_PROTOCOL),
    ],
)  # fmt: skip
def test_the_suffix_determines_the_format(name: str, found: Format) -> None:
    assert input_format(name, None) is found
    assert input_format(name, Format.INFLUX_CSV) is Format.INFLUX_CSV


@pytest.mark.parametrize("name", ["a", "a.gz", "a.txt", "a.csv.bz2", "-", ""])
def test_a_name_without_a_known_suffix_is_an_error(name: str) -> None:
    with pytest.raises(CommandError, match="add --format ndjson, json, csv, lp or influx-csv"):
        input_format(name, None)


def test_compression_suffixes_are_recognised() -> None:
    assert suffixes("/tmp/A.CSV.GZ") == (".csv", ".gz")
    assert suffixes("a.zst") == ("", ".zst")
    assert suffixes("a") == ("", "")


@given(st.lists(st.binary(max_size=20), max_size=20), st.integers(1, 30))
def test_chunks_are_read_as_one_file(chunks: list[bytes], size: int) -> None:
    stream = io.BufferedReader(ChunkStream(iter(chunks)), size)
    assert b"".join(iter(lambda: stream.read(3), b"")) == b"".join(chunks)
