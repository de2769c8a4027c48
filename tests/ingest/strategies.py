"""Generate the text of records, with valid and invalid values of every member."""

from hypothesis import strategies as st

# Generate JSON as text, not as values, because parsers differ in how they treat spelling.
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
    "repair_id": st.sampled_from(
        ["null", "1", "1.0", "1.5", "true", '"1"', '"x"', "-9223372036854775809", "18446744073709551616"]
    ),
    "timestamp": NUMBERS
    | st.sampled_from(
        ['"2024-01-31T13:45:00.123Z"', '"2024-01-31 13:45:00+02:00"', '"2024-02-29z"', '"2024-01-31 13:45:00,123"',
         '"2024-01-31T13:45:00,1234567Z"', '"CURRENT_TIMESTAMP"', '"2024-02-30"', "true", "null",
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
