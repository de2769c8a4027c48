"""The file of the retention policies: its contents, and errors that name the policy and the key."""

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from factory_logs.errors import BadRequestError
from factory_logs.query import QueryLimits
from factory_logs.retention.policies import MOST_POLICIES, Policy, check_archives, read_policies
from factory_logs.settings import Settings

LIMITS = QueryLimits.from_settings(Settings())
Q = '{"filters": [{"name": "app_name", "op": "==", "val": "koala"}]}'
VALID = f"""
[[policy]]
name = "koala"
older_than = "90d"
q = '{Q}'
archive = "archives"

[[policy]]
name = "all"
older_than = "52w"
"""


def read(folder: Path, text: str) -> tuple[Policy, ...]:
    file = folder / "retention.toml"
    file.write_text(text)
    return read_policies(file, LIMITS)


def test_the_example_of_the_docs_is_valid(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "operating.md").read_text()
    (example,) = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    for line in map(str, read(tmp_path, example)):
        assert f"\n   {line}\n" in page


def errors(folder: Path, text: str) -> list[str]:
    with pytest.raises(BadRequestError) as caught:
        read(folder, text)
    assert str(folder / "retention.toml") in caught.value.message
    return [str(error) for error in caught.value.errors] or [caught.value.message.partition("retention.toml")[2]]


def test_policies_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    koala, everything = read(tmp_path, VALID)
    assert (koala.name, koala.age, koala.q, koala.archive) == ("koala", timedelta(days=90), Q, tmp_path / "archives")
    assert (everything.name, everything.age, everything.q, everything.archive) == (
        "all",
        timedelta(weeks=52),
        None,
        None,
    )


def test_a_byte_order_mark_before_q_is_ignored(tmp_path: Path) -> None:
    marked, _ = read(tmp_path, VALID.replace("q = '", "q = '\ufeff"))
    plain, _ = read(tmp_path, VALID)
    now = datetime(2024, 5, 1, 2, 0, tzinfo=UTC)
    assert marked.expired(now, LIMITS).query == plain.expired(now, LIMITS).query


def test_a_line_for_people_shows_each_part(tmp_path: Path) -> None:
    koala, everything = map(str, read(tmp_path, VALID))
    assert koala == f"koala: logs older than 90d that {Q} selects, archived in {tmp_path}/archives"
    assert everything == "all: logs older than 52w"


def test_a_log_expires_when_it_is_older_than_the_age(tmp_path: Path) -> None:
    koala, _ = read(tmp_path, VALID)
    now = datetime(2024, 5, 1, 2, 0, tzinfo=UTC)
    assert koala.expired(now, LIMITS).cutoff == datetime(2024, 2, 1, 2, 0)
    assert koala.expired(now.astimezone(), LIMITS).cutoff == datetime(2024, 2, 1, 2, 0)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (('name = "koala"', ""), "policy 1: name: Field required"),
        (('name = "koala"', "name = 7"), "policy 1: name: Input should be a valid string"),
        (('name = "koala"', 'name = "ko ala"'), "policy 'ko ala': name: String should match pattern "),
        (('older_than = "90d"', ""), "policy 'koala': older_than: Field required"),
        (('older_than = "90d"', "older_than = 90"), "policy 'koala': older_than: Input should be a valid string"),
        (('older_than = "90d"', 'older_than = "90"'), "policy 'koala': older_than: '90' is not a duration such as"),
        (('older_than = "90d"', 'older_than = "0d"'), "policy 'koala': older_than: '0d' is not a duration such as"),
        (('older_than = "90d"', 'older_than = "9999999w"'), "policy 'koala': older_than: 9999999w is too long"),
        (('"op": "=="', '"op": "~"'), "policy 'koala': q: Unable to construct query: filters[0].op: "),
        (('"filters"', '"limit": 3, "filters"'), "policy 'koala': q: q may have filters only"),
        (('"filters"', '"filter"'), "policy 'koala': q: q may have filters only"),
        (('"filters"', '"filters": [], "filters_"'), "policy 'koala': q: q may have filters only"),
        (('"filters": [{', '"filters": [{{'), "policy 'koala': q: Unable to decode data"),
        (('archive = "archives"', 'archive = ""'), "policy 'koala': archive: String should have at least 1 character"),
        (('archive = "archives"', 'archiv = "archives"'), "policy 'koala': archiv: Extra inputs are not permitted"),
        (('name = "all"', 'name = "koala"'), "policy 'koala': name: two policies have this name"),
    ],
)
def test_an_error_names_the_policy_and_the_key(tmp_path: Path, change: tuple[str, str], error: str) -> None:
    assert change[0] in VALID
    (found,) = errors(tmp_path, VALID.replace(*change, 1))
    assert found.startswith(error)


def test_all_errors_are_named_at_once(tmp_path: Path) -> None:
    text = VALID.replace("90d", "x").replace("52w", "y").replace("archive =", "folder =")
    assert [error.partition(": ")[0] for error in errors(tmp_path, text)] == ["policy 'koala'", "policy 'all'"]


@pytest.mark.parametrize(
    "text",
    ["", "policy = 3", "policy = []", "policy = [1]", "[policy]\nname = 'x'\nolder_than = '1d'", "x = 1\n" + VALID],
)
def test_a_file_without_policies_is_an_error_with_the_expected_content(tmp_path: Path, text: str) -> None:
    (found,) = errors(tmp_path, text)
    assert found.startswith(" must contain one or more tables [[policy]], each with name and older_than")


def test_text_that_is_not_toml_is_an_error_with_its_line(tmp_path: Path) -> None:
    (found,) = errors(tmp_path, VALID.replace('"90d"', "90d"))
    assert found.startswith(" is not TOML: ")
    assert "line 4" in found
    (tmp_path / "retention.toml").write_bytes(b"\xff")
    with pytest.raises(BadRequestError, match="is not TOML"):
        read_policies(tmp_path / "retention.toml", LIMITS)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="No such file"):
        read_policies(tmp_path / "retention.toml", LIMITS)


def test_there_may_be_a_hundred_policies_and_no_more(tmp_path: Path) -> None:
    tables = [f'[[policy]]\nname = "p{number}"\nolder_than = "1d"\n' for number in range(MOST_POLICIES + 1)]
    assert len(read(tmp_path, "".join(tables[:-1]))) == MOST_POLICIES
    assert errors(tmp_path, "".join(tables)) == [" contains 101 policies, but at most 100 are allowed"]


def test_an_archive_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    check_archives(read(tmp_path, VALID))
    (tmp_path / "archives").write_text("a file")
    with pytest.raises(BadRequestError) as caught:
        check_archives(read(tmp_path, VALID))
    assert [str(error) for error in caught.value.errors] == [
        f"policy 'koala': archive: this user cannot write to {tmp_path}/archives"
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_archive_folder_of_another_user_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "archives").mkdir(mode=0o500)
    with pytest.raises(BadRequestError):
        check_archives(read(tmp_path, VALID))
