"""Regular expressions: errors are Go's, and PostgreSQL finds what RE2 finds."""

import itertools

import pytest
from sqlalchemy import text

from factory_logs.db.engine import Database
from factory_logs.influxql.errors import InfluxqlError
from factory_logs.influxql.regexes import MOST_REPEATS, matches, postgresql_pattern

PATTERNS = (
    "a", "^a|b$", ".", "^.$", "(?s)^.$", r"\d+", r"\D", r"\w\W", r"\s", r"\S+", r"\bJ", r"J\B", r"\Aa\z", "a.c", "[a-c]+x?",
    "[^a-c]", r"[\d.]", r"[\]\-x]", "[]a]", "[^]]", "a{2}", "a{1,}", "a{0,2}b", "a{,2}", "{", "a{x", "(a|b)*c", "(?:a|b)+?$",
    "(?P<n>a)b", "(?i)JIG", "(?m)^b$", r"\Qa.b\E", r"\Q*", r"\.", r"\*\+\?", r"\x41", r"\x{e9}", "é", "[[:alpha:]]",
    "[[:digit:]x]", "()", "a|", r"\t", r"\/", "[.*+?(){}|^$]", r"[\^]", r"a\\b", "(?i)É", r"[\w-]+$",
)  # fmt: skip
TEXTS = (
    "", "a", "b", "ab", "aa", "aab", "abc", "c", "x", "J", "J-01", "jJ", "0", "19", " ", "\n", "a\nb", "b\na", "\t", "A", "*", "é", "É",
    "{", "a{x", "a{,2}", "]", "-", "_", "/", ".", "a.b", "axb", "jig", "JIG", "a\\b", "*+?", "ß", "a b", "٣",
)  # fmt: skip


async def test_postgresql_finds_the_same_matches_as_re2(database: Database) -> None:
    statement = text("SELECT CAST(:value AS text) ~ CAST(:pattern AS text)")
    async with database.connect_reader() as connection:
        for pattern, value in itertools.product(PATTERNS, TEXTS):
            parameters = {"value": value, "pattern": postgresql_pattern(pattern)}
            found = (await connection.execute(statement, parameters)).scalar_one()
            assert found == matches(pattern, value), (pattern, postgresql_pattern(pattern), value)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "error parsing regexp: missing closing ): `(`"),
        ("[a", "error parsing regexp: missing closing ]: `[a`"),
        ("*", "error parsing regexp: missing argument to repetition operator: `*`"),
        ("a**", "error parsing regexp: invalid nested repetition operator: `**`"),
        ("a{1001}", "error parsing regexp: invalid repeat count: `{1001}`"),
        ("[z-a]", "error parsing regexp: invalid character class range: `z-a`"),
    ],
)
def test_errors_are_the_same_as_in_go(pattern: str, message: str) -> None:
    with pytest.raises(InfluxqlError) as raised:
        matches(pattern, "")
    assert raised.value.message == message


@pytest.mark.parametrize("pattern", [r"\pL", "a(?i)b", "(?i:a)", r"[\D]", r"\x{0}", "[[:^alpha:]]"])
def test_a_regex_that_postgresql_cannot_express_is_refused(pattern: str) -> None:
    with pytest.raises(InfluxqlError, match="is not supported"):
        postgresql_pattern(pattern)


@pytest.mark.parametrize("digits", ["9" * 5_000, "01"])
def test_braces_that_re2_reads_as_text_are_text(digits: str) -> None:
    assert matches(f"^a{{{digits}}}$", f"a{{{digits}}}")
    assert postgresql_pattern(f"a{{{digits}}}") == f"a\\{{{digits}}}"


def test_repeats_are_bounded_as_postgresql_bounds_them() -> None:
    assert postgresql_pattern(f"a{{{MOST_REPEATS}}}") == f"a{{{MOST_REPEATS}}}"
    with pytest.raises(InfluxqlError, match=f"over {MOST_REPEATS} is not supported"):
        postgresql_pattern(f"a{{{MOST_REPEATS + 1}}}")
