"""Generate random JSON values."""

from hypothesis import strategies as st

from factory_logs.schemas.json_values import INT_MAX, INT_MIN

STORABLE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(INT_MIN, INT_MAX)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), children, max_size=4
        )
    ),
    max_leaves=20,
)
