"""Logs in columns are the same logs as one by one."""

from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from factory_logs.ingest.new_logs import NewLogs
from factory_logs.ingest.validation import NewLog

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)
LOGS = st.lists(
    st.builds(
        NewLog, TEXT, st.none() | st.just("352099001761481"), st.none() | st.integers(),
        st.datetimes() | st.sampled_from([datetime.min, datetime.max]), st.none() | TEXT, st.none() | TEXT,
    ),
    max_size=6,
)  # fmt: skip


@given(LOGS, LOGS)
def test_columns_have_the_rows_from_which_they_were_made(logs: list[NewLog], more: list[NewLog]) -> None:
    one_by_one = NewLogs()
    for log in logs:
        one_by_one.append(log)
    assert one_by_one == NewLogs.of(logs)
    assert list(one_by_one) == logs
    one_by_one.extend(NewLogs.of(more))
    assert list(one_by_one) == logs + more
    assert list(one_by_one[1:3]) == (logs + more)[1:3]


@given(st.lists(st.tuples(LOGS.filter(bool).map(lambda logs: logs[0]), st.booleans(), st.integers(0, 3)), max_size=6))
def test_columns_are_filtered_and_sorted_as_rows_are(rows: list[tuple[NewLog, bool, int]]) -> None:
    logs = NewLogs.of([log for log, _, _ in rows])
    assert list(logs.selected([keep for _, keep, _ in rows])) == [log for log, keep, _ in rows if keep]
    in_order = sorted(rows, key=lambda row: row[2])
    assert list(logs.ordered([key for _, _, key in rows])) == [log for log, _, _ in in_order]
