"""Generate random InfluxQL: trees that the parser can produce, for round trips through their text."""

from hypothesis import strategies as st

from factory_logs.influxql.ast import (
    Binary,
    Call,
    Distinct,
    Duration,
    Expression,
    Fill,
    KeyCondition,
    Literal,
    Measurement,
    Paren,
    Reference,
    Regex,
    Select,
    SelectField,
    Show,
    Shown,
    Type,
    Wildcard,
)

NAMES = st.sampled_from(["voltage", "battery.voltage", "time", "select", 'a"b', "ü", "a b", "x\\y", "line\nbreak", "9"])
TEXTS = st.text(st.characters(exclude_characters="\x00\r", exclude_categories=["Cs"]), max_size=8)
PATTERNS = st.sampled_from(["a", "^a|b$", "[a-z]+", "a/b", r"\d{1,3}", "(?i)x", r"\."])
REFERENCES = st.builds(
    Reference,
    NAMES,
    st.none() | st.sampled_from(list(Type)),
)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(-1e12, 1e12).map(lambda number: round(number, 3))
LITERALS = st.builds(Literal, TEXTS | st.booleans() | NUMBERS)
DURATIONS = st.builds(Duration, st.integers(0, 2**62))
LEAVES = REFERENCES | LITERALS | DURATIONS


def _operations(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    """Operands are leaves or in parentheses, so that the text has only one meaning."""
    operands = LEAVES | inner.map(Paren)
    plain = st.builds(
        Binary, st.sampled_from(["+", "-", "*", "/", "%", "&", "|", "^", "=", "!=", "<", ">="]), operands, operands
    )
    logic = st.builds(Binary, st.sampled_from(["AND", "OR"]), operands, operands)
    matching = st.builds(Binary, st.sampled_from(["=~", "!~"]), REFERENCES, st.builds(Regex, PATTERNS))
    calls = st.builds(Call, st.sampled_from(["mean", "count", "top", "now"]), st.lists(inner, max_size=3).map(tuple))
    return plain | logic | matching | calls


EXPRESSIONS: st.SearchStrategy[Expression] = st.recursive(LEAVES, _operations, max_leaves=12)
FIELD_EXPRESSIONS = st.one_of(
    REFERENCES,
    st.builds(Wildcard, st.sampled_from([None, Type.TAG, Type.FIELD])),
    st.builds(Regex, PATTERNS),
    st.builds(Distinct, NAMES),
    st.builds(Call, st.just("mean"), st.tuples(REFERENCES | st.builds(Wildcard) | st.builds(Regex, PATTERNS))),
    st.builds(Binary, st.sampled_from("+-*/"), REFERENCES, LITERALS),
)
FIELDS = st.builds(SelectField, FIELD_EXPRESSIONS, st.just("") | NAMES)
MEASUREMENTS = st.builds(Measurement, NAMES) | st.builds(Measurement, st.just(""), st.builds(Regex, PATTERNS))
LIMITS = st.integers(0, 10)
DIMENSIONS = st.one_of(
    st.builds(Reference, NAMES),
    st.builds(Wildcard),
    st.builds(Regex, PATTERNS),
    st.builds(Call, st.just("time"), st.lists(DURATIONS, min_size=1, max_size=2).map(tuple)),
)


def _select(sources: st.SearchStrategy[Measurement | Select]) -> st.SearchStrategy[Select]:
    fills = st.sampled_from([Fill.NULL, Fill.NONE, Fill.PREVIOUS, Fill.LINEAR]).map(lambda fill: (fill, None))
    numbers = (st.integers(-5, 5) | st.floats(-5, 5)).map(lambda number: (Fill.NUMBER, round(number, 3)))
    sorting = st.sampled_from([(False, False), (True, False), (True, True)])
    return st.builds(
        lambda fields, of, condition, dimensions, fill, order, limits, zone: Select(
            fields, of, condition, dimensions, *fill, *order, *limits, zone
        ),
        st.lists(FIELDS, min_size=1, max_size=3).map(tuple),
        st.lists(sources, min_size=1, max_size=2).map(tuple),
        st.none() | EXPRESSIONS,
        st.lists(DIMENSIONS, max_size=2).map(tuple),
        fills | numbers,
        sorting,
        st.tuples(LIMITS, LIMITS, LIMITS, LIMITS),
        st.none() | st.sampled_from(["UTC", "Asia/Shanghai"]),
    )


SELECTS = st.recursive(_select(MEASUREMENTS), lambda inner: _select(MEASUREMENTS | inner), max_leaves=3)
KEYS = st.builds(KeyCondition, st.just("IN"), st.lists(NAMES, min_size=1, max_size=2).map(tuple)) | st.builds(
    lambda pattern: KeyCondition("=~", regex=Regex(pattern)), PATTERNS
)
SHOWS = st.one_of(
    st.builds(Show, st.just(Shown.DATABASES)),
    st.builds(Show, st.just(Shown.RETENTION_POLICIES), NAMES),
    st.builds(
        lambda shown, database, sources, condition, limit: Show(
            shown, database, sources, condition=condition, limit=limit
        ),
        st.sampled_from([Shown.SERIES, Shown.TAG_KEYS]),
        st.just("") | NAMES,
        st.lists(MEASUREMENTS, max_size=2).map(tuple),
        st.none() | EXPRESSIONS,
        LIMITS,
    ),
    st.builds(
        lambda key, condition, offset: Show(Shown.TAG_VALUES, key=key, condition=condition, offset=offset),
        KEYS,
        st.none() | EXPRESSIONS,
        LIMITS,
    ),
    st.builds(lambda source: Show(Shown.MEASUREMENTS, with_measurement=source), MEASUREMENTS),
)
