"""The parser: each text has one tree, each tree one text, and each error names the position as InfluxDB does."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_logs.influxql.ast import (
    Binary,
    Call,
    CreateDatabase,
    Duration,
    Expression,
    Fill,
    Literal,
    Measurement,
    Paren,
    Reference,
    Refused,
    Regex,
    Select,
    Show,
    Shown,
    Type,
    Wildcard,
)
from factory_logs.influxql.bound_parameters import NONE, parse_parameters
from factory_logs.influxql.errors import InfluxqlError, ParseError
from factory_logs.influxql.expressions import LONGEST_CHAIN, ParserLimits
from factory_logs.influxql.parser import parse_query
from tests.influxql.statement_text import format_select, format_show
from tests.influxql.strategies import SELECTS, SHOWS


def one(text: str) -> Select:
    (statement,) = parse_query(text)
    assert isinstance(statement, Select)
    return statement


def condition(text: str) -> Expression:
    found = one(f"SELECT a FROM m WHERE {text}").condition
    assert found is not None
    return found


def error(text: str, limits: ParserLimits | None = None) -> str:
    with pytest.raises(ParseError) as raised:
        parse_query(text, limits=limits)
    return raised.value.message


@pytest.mark.slow
@given(SELECTS)
def test_a_select_is_equal_after_writing_and_parsing(select: Select) -> None:
    assert parse_query(format_select(select)) == (select,)


@given(SHOWS)
def test_a_show_is_equal_after_writing_and_parsing(show: Show) -> None:
    assert parse_query(format_show(show)) == (show,)


WORDS = st.sampled_from([*"a(),*/'\".-;", "SELECT", "FROM", "WHERE", "=~", "::", "1h", "$p", "--", "/*"])


@given(st.text(max_size=60) | st.lists(WORDS, max_size=20).map(" ".join))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with suppress(ParseError):
        assert isinstance(parse_query(text), tuple)


def test_operators_bind_as_in_influxdb() -> None:
    a, b, c = Reference("a"), Reference("b"), Reference("c")
    assert condition("a + b * c = 1") == Binary("=", Binary("+", a, Binary("*", b, c)), Literal(1))
    assert condition("a - b - c = 1") == Binary("=", Binary("-", Binary("-", a, b), c), Literal(1))
    assert condition("a = 1 OR b = 2 AND c = 3") == Binary(
        "OR",
        Binary("=", a, Literal(1)),
        Binary("AND", Binary("=", b, Literal(2)), Binary("=", c, Literal(3))),
    )
    assert condition("(a OR b) and c") == Binary("AND", Paren(Binary("OR", a, b)), c)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-5", Literal(-5)), ("+5", Literal(5)), ("-1h", Duration(-3600 * 10**9)), ("1.5", Literal(1.5)), (".5", Literal(0.5)),
        ("- a", Binary("*", Literal(-1), Reference("a"))), ("'it\\'s'", Literal("it's")), ("true", Literal(True)),
        ("1w2d3h4m5s6ms7u8ns", Duration(788_645_006_007_008)), ("9223372036854775808", Literal(2**63)),
        ("-9223372036854775808", Literal(-(2**63))), ("now()", Call("now")), ('"a b"', Reference("a b")),
        ("a.b", Reference("a.b")), ("a::field", Reference("a", Type.FIELD)), ("a::Float", Reference("a", Type.FLOAT)),
    ],
)  # fmt: skip
def test_literals_and_names(text: str, expected: Expression) -> None:
    assert condition(f"x = {text}") == Binary("=", Reference("x"), expected)


def test_the_clauses_of_select() -> None:
    select = one(
        'SELECT mean("a") AS "m", *::tag, /b/ FROM "x"."y".z, /w/ WHERE a > 1 GROUP BY time(1m, 5s), *, /t/ fill(-1.5) '
        "ORDER BY time DESC LIMIT 1 OFFSET 2 SLIMIT 3 SOFFSET 4 tz('Asia/Shanghai')"
    )
    assert [field.expression for field in select.fields] == [
        Call("mean", (Reference("a"),)), Wildcard(Type.TAG), Regex("b"),
    ]  # fmt: skip
    assert select.sources == (Measurement("z", database="x", policy="y"), Measurement(regex=Regex("w")))
    assert select.dimensions == (Call("time", (Duration(60 * 10**9), Duration(5 * 10**9))), Wildcard(), Regex("t"))
    assert (select.fill, select.fill_value, select.descending, select.zone) == (
        Fill.NUMBER,
        -1.5,
        True,
        "Asia/Shanghai",
    )
    assert (select.limit, select.offset, select.series_limit, select.series_offset) == (1, 2, 3, 4)


def test_white_space_comments_and_semicolons() -> None:
    statements = parse_query(" ;SHOW DATABASES -- all of them\n;; show /* a\ncomment */ measurements; ")
    assert statements == (Show(Shown.DATABASES), Show(Shown.MEASUREMENTS))
    assert parse_query("") == ()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("DROP DATABASE a", "DROP DATABASE"), ("drop retention policy a ON b", "DROP RETENTION POLICY"),
        ("DELETE FROM a WHERE time < 5", "DELETE"), ("GRANT ALL PRIVILEGES TO a", "GRANT"), ("REVOKE ALL FROM a", "REVOKE"),
        ("CREATE CONTINUOUS QUERY a ON b BEGIN SELECT c INTO d FROM e END", "CREATE CONTINUOUS QUERY"),
        ("ALTER RETENTION POLICY a ON b DEFAULT", "ALTER RETENTION POLICY"), ("SHOW STATS", "SHOW STATS"),
        ("SET PASSWORD FOR a = 'b'", "SET PASSWORD FOR"), ("KILL QUERY 3", "KILL QUERY"),
    ],
)  # fmt: skip
def test_statements_that_write_or_manage_are_recognised(text: str, name: str) -> None:
    assert parse_query(f"{text}; SHOW DATABASES") == (Refused(name), Show(Shown.DATABASES))


def test_create_database_and_into() -> None:
    assert parse_query('CREATE DATABASE "a b" WITH DURATION 3d NAME x') == (CreateDatabase("a b"),)
    assert one('SELECT a INTO "x"..b FROM m').into == Measurement("b")
    assert one("SELECT a INTO x.y.:MEASUREMENT FROM m").into is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT", "found EOF, expected identifier, string, number, bool at line 1, char 8"),
        ("SELECT --", "found EOF, expected identifier, string, number, bool at line 1, char 11"),
        ("SELECT -- a", "found EOF, expected identifier, string, number, bool at line 1, char 13"),
        ("SELECT a\nFROM", "found EOF, expected identifier at line 2, char 6"),
        ("SELECT a = 1 FROM m", "invalid operator = in SELECT clause at line 1, char 8; operator is intended for WHERE clause"),
        ("SELECT a FROM m WHERE b = 'x", "found x, expected identifier, string, number, bool at line 1, char 26"),
        ("SELECT a FROM m WHERE b = 'x\\q'", "found \\q, expected identifier, string, number, bool at line 1, char 30"),
        ("SELECT a FROM m LIMIT x", "found x, expected integer at line 1, char 23"),
        ("SELECT a FROM m ORDER BY a", "only ORDER BY time supported at this time"),
        ("SELECT a FROM m fill(x)", "expected number argument in fill()"),
        ("SELECT a FROM m fill()", "fill requires an argument, e.g.: 0, null, none, previous, linear"),
        ("SELECT a FROM m tz('Mars')", "unable to find time zone Mars"),
        ("SELECT a FROM m tz('../etc/passwd')", "unable to find time zone ../etc/passwd"),
        ("SELECT a FROM m WHERE b =~ 'x'", "found x, expected regex at line 1, char 27"),
        ("SELECT a FROM m WHERE b =~ /a**/", "error parsing regexp: invalid nested repetition operator: `**` at line 1, char 27"),
        ("SELECT a FROM a.b.c.d", 'too many segments in "a"."b"."c".d at line 1, char 1'),
        ("SELECT a FROM m SELECT b FROM m", "found SELECT, expected ; at line 1, char 17"),
        ("SELECT a::foo FROM m",
         "found foo, expected float, integer, unsigned, string, boolean, field, tag at line 1, char 11"),
        ("SELECT 99999999999999999999999 FROM m", "unable to parse integer at line 1, char 8"),
        ("SELECT -9223372036854775809 FROM m", "constant -9223372036854775809 underflows int64"),
        ("SELECT a FROM m WHERE time > 1hh", "invalid duration"),
        ("SELECT a FROM m WHERE time > 99999999999999w", "overflowed duration 99999999999999w: choose a smaller duration or INF"),
        ("SHOW TAG VALUES FROM m", "found EOF, expected WITH at line 1, char 24"),
        ("SHOW TAG VALUES WITH KEY > a", "found >, expected IN, =, =~ at line 1, char 26"),
        ('from(bucket: "x")',
         "found FROM, expected SELECT, DELETE, SHOW, CREATE, DROP, EXPLAIN, GRANT, REVOKE, ALTER, SET, KILL at line 1, char 1"),
    ],
)  # fmt: skip
def test_errors_are_those_of_influxdb(text: str, message: str) -> None:
    assert error(text) == message


def test_bound_parameters_are_single_tokens() -> None:
    values = '{"s": "x\' OR 1=1", "i": 3, "f": 1.5, "b": false, "n": {"ident": "a b"}, "r": {"regex": "^x"}, "d": {"duration": "5m"}}'
    parameters = parse_parameters(values)
    (statement,) = parse_query(
        "SELECT $n FROM m WHERE s = $s AND f > $f AND b = $b AND r =~ $r GROUP BY time($d) LIMIT $i", parameters
    )
    assert isinstance(statement, Select)
    assert format_select(statement) == (
        "SELECT \"a b\" FROM m WHERE s = 'x\\' OR 1=1' AND f > 1.500 AND b = false AND r =~ /^x/ GROUP BY time(5m) LIMIT 3"
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("{}", "missing parameter: p"),
        ('{"p": [1]}', "missing parameter: unable to bind parameter with type []interface {}"),
        ('{"p": {"a": 1, "b": 2}}', "missing parameter: bound object parameter value must have exactly one entry"),
        ('{"p": {"wrong": 1}}', "missing parameter: unknown bind object type: wrong"),
        ('{"p": {"integer": "x"}}', "missing parameter: integer literal must be an integer value"),
    ],
)
def test_parameters_that_cannot_be_bound(values: str, message: str) -> None:
    with pytest.raises(ParseError) as raised:
        parse_query("SELECT a FROM m WHERE b = $p", parse_parameters(values))
    assert raised.value.message == message


@pytest.mark.parametrize(
    ("value", "bound"),
    [
        ("1.0e-999999999", "0.0"),
        ("1.0e-99999999999999999999", "0.0"),
        ("0.0e99999999999999999999", "0.0"),
        ("2.50e3", "2500.0"),
        ("-9223372036854775808", "-9223372036854775808"),
    ],
)
def test_a_number_is_bound_with_the_digits_of_a_double_at_most(value: str, bound: str) -> None:
    assert parse_parameters(f'{{"p": {value}}}')["p"][1] == bound


@pytest.mark.parametrize("value", ["%s", '{"float": %s}', '{"integer": %s}', '{"duration": %s}'])
@pytest.mark.parametrize("digits", ["9223372036854775808", "9" * 1_000_000])
def test_an_integer_beyond_64_bits_is_refused_however_long(value: str, digits: str) -> None:
    with pytest.raises(InfluxqlError, match="invalid syntax"):
        parse_query("SELECT a FROM m GROUP BY time($p)", parse_parameters(f'{{"p": {value % digits}}}'))


@pytest.mark.parametrize("value", [r'"a\ud800"', r'{"ident": "a\ud800"}', r'{"regex": "a\ud800"}', r'{"a\ud800": 1}'])
def test_a_lone_surrogate_in_a_parameter_is_replaced_as_go_does(value: str) -> None:
    text = parse_parameters(f'{{"p": {value}}}')["p"][1]
    assert text.endswith("a\ufffd")


def test_an_empty_parameter() -> None:
    with pytest.raises(ParseError, match="empty bound parameter"):
        parse_query("SELECT a FROM m WHERE b = $", NONE)


def test_the_limits_at_their_edges() -> None:
    text = "SELECT a FROM m"
    parse_query(text, limits=ParserLimits(characters=len(text)))
    assert error(text, ParserLimits(characters=len(text) - 1)) == "the query is longer than 14 characters"
    parse_query("SHOW DATABASES;" * 2, limits=ParserLimits(statements=2))
    assert error("SHOW DATABASES;" * 3, ParserLimits(statements=2)) == "the query has more than 2 statements"
    parse_query("SELECT ((a)) FROM m", limits=ParserLimits(depth=4))
    assert error("SELECT (((a))) FROM m", ParserLimits(depth=4)) == "the query is nested deeper than 4 levels"
    parse_query("SELECT a, b FROM m", limits=ParserLimits(nodes=4))
    assert "more than 4 names" in error("SELECT a, b, c FROM m", ParserLimits(nodes=4))


def test_chains_may_be_long_only_if_they_are_not_deep() -> None:
    deep = 0
    node: Expression = condition(" OR ".join(f"a = {number}" for number in range(1000)))
    while isinstance(node, Binary):
        deep, node = deep + 1, node.left
    assert deep <= 12
    condition("a = 1" + " + 1" * (LONGEST_CHAIN - 1))
    assert "operators in a row" in error("SELECT a FROM m WHERE a" + " + 1" * (LONGEST_CHAIN + 1) + " = 1")
