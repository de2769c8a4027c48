"""The same statements to Factory Logs and to InfluxDB 1.6, with the same points in both (docs/reference/influxql.md).

Compared are the status, the content type and the body: the order of series, columns and members, the text of each
number. `pytest -s` prints how many statements were compared. More of the drawn ones, with another seed:

    uv run pytest -q -s tests/influxql/test_against_influxd.py -k drawn --influxql-statements 5000 --influxql-seed 7
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.influxql.generator import broken, statements
from tests.influxql.points import DATABASE
from tests.influxql.responses import SUMMED, differences, documents, in_order
from tests.influxql.statements import EMPTY, REFUSED, RESPONDED

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "influxql.md"
CHOSEN = [("RESPONDED", text) for text in RESPONDED] + [("EMPTY", text) for text in EMPTY] + [
    ("REFUSED", text) for text in REFUSED
]  # fmt: skip
DRAWN = 300

ON_PURPOSE = [
    "SELECT mean(note) FROM tiger; SELECT count(voltage) FROM tiger",
    "SELECT voltage FROM tiger OFFSET 100",
    "SELECT top(cycles, 2) FROM tiger LIMIT 3",
    "SELECT sum(ok) / sum(n) AS y FROM (SELECT count(passed) AS ok FROM tiger WHERE passed = true), "
    "(SELECT count(passed) AS n FROM tiger)",
    "SHOW TAG VALUES FROM tiger WITH KEY = jig_id WHERE time > now() - 1w",
    "SHOW TAG VALUES FROM tiger WITH KEY = jig_id WHERE voltage > 3.5",
    "SHOW TAG VALUES EXACT CARDINALITY FROM tiger WITH KEY = jig_id WHERE hostname != 'CN-REG0'",
    "SHOW MEASUREMENTS WHERE jig_id = ''",
    "SHOW MEASUREMENTS WHERE jig_id",
    "SELECT /* a comment */ count(voltage) FROM tiger",
    "SELECT percentile(voltage, 1) FROM tiger GROUP BY time(1d) fill(none)",
    "SELECT count(distinct(v)) FROM ancient WHERE time < 0",
    "SELECT max(v) FROM clock WHERE time >= '2024-10-26T22:00:00Z' AND time < '2024-10-27T06:00:00Z' GROUP BY time(2h) "
    "tz('Europe/Berlin')",
    "SELECT count(v) FROM (SELECT mean(voltage) AS v FROM tiger GROUP BY time(12h)) WHERE time > '2024-01-30T22:37:30Z' "
    "AND time < '2024-02-01'",
    "SELECT count(v) FROM (SELECT max(voltage) AS v FROM tiger WHERE passed = false GROUP BY time(12h), * fill(0)) "
    "WHERE time >= '2024-01-30' AND time < '2024-02-01' GROUP BY time(1w)",
    "CREATE DATABASE factory_logs",
    "SHOW STATS",
]
"""Statements whose responses differ on purpose. The reference page has the reason of each."""

Servers = tuple[httpx.Client, httpx.Client]


class Request(NamedTuple):
    """A request that is more than one statement in a query string with `db`."""

    parameters: Mapping[str, str]
    form: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    method: str = "GET"


MEAN = "SELECT mean(voltage) FROM tiger GROUP BY jig_id"
MOST = "SELECT max(voltage) FROM tiger GROUP BY jig_id"
POINTS = "SELECT voltage, note, passed FROM tiger WHERE jig_id = 'J-01' LIMIT 5"
CSV = {"Accept": "application/csv"}
IN = {"db": DATABASE}
REQUESTS = [
    # missing parameters
    Request({}), Request(IN), Request(IN | {"q": ""}), Request({"q": MEAN}), Request({"q": "SHOW DATABASES"}),
    Request({"q": "SHOW MEASUREMENTS"}), Request({"q": f"SELECT mean(voltage) FROM {DATABASE}..tiger"}),
    Request({"q": f'SHOW TAG KEYS ON "{DATABASE}" FROM tiger'}), Request({"q": "SHOW RETENTION POLICIES"}),
    Request({"q": f"SHOW FIELD KEYS ON {DATABASE} FROM tiger"}), Request(IN | {"q": MEAN, "rp": "autogen"}),
    # methods and bodies
    Request(IN | {"q": MEAN}, method="POST"), Request({}, IN | {"q": MEAN}, method="POST"),
    Request(IN, {"q": MEAN}, method="POST"), Request({}, IN | {"q": POINTS, "epoch": "s"}, method="POST"),
    Request({}, {"db": DATABASE}, method="POST"), Request({}, {"q": f"CREATE DATABASE {DATABASE}"}, method="POST"),
    # epoch
    *(Request(IN | {"q": POINTS, "epoch": epoch}) for epoch in ("ns", "u", "µ", "ms", "s", "m", "h", "", "nonsense")),
    *(Request(IN | {"q": "SELECT v FROM ancient", "epoch": epoch}) for epoch in ("ns", "u", "ms", "s", "m", "h")),
    Request(IN | {"q": "SELECT count(v) FROM clock WHERE time > '2024-03-30' AND time < '2024-04-01' GROUP BY time(1d)"
                       " tz('Europe/Berlin')", "epoch": "ms"}),
    Request(IN | {"q": "SHOW TAG VALUES WITH KEY = jig_id", "epoch": "ms"}),
    # pretty
    Request(IN | {"q": MEAN, "pretty": "true"}), Request(IN | {"q": "SELEC", "pretty": "true"}),
    Request(IN | {"q": MEAN, "pretty": "false"}), Request(IN | {"q": MEAN, "pretty": "1"}),
    # chunked
    *(
        Request(IN | {"q": text, "chunked": "true", "chunk_size": size})
        for text in (MEAN, POINTS, f"{POINTS}; {MEAN}; SELECT x FROM nowhere", "SELECT * FROM tiger GROUP BY jig_id",
                     "SELECT v FROM ancient; SELEC",
                     "SELECT v FROM ancient; SELECT mean(note) FROM tiger",
                     "SHOW MEASUREMENTS", "SHOW TAG VALUES WITH KEY = jig_id", "SELECT voltage FROM tiger, koala",
                     "SHOW SERIES", "SHOW FIELD KEYS", "SHOW SERIES EXACT CARDINALITY FROM tiger, koala", "SHOW TAG KEYS; SHOW DATABASES")
        for size in ("1", "2", "5", "100", "10000")
    ),
    Request(IN | {"q": POINTS, "chunked": "true"}), Request(IN | {"q": POINTS, "chunked": "true", "chunk_size": "x"}),
    Request(IN | {"q": POINTS, "chunked": "false", "chunk_size": "2"}),
    Request(IN | {"q": "SELECT level FROM dense", "chunked": "true", "chunk_size": "150", "epoch": "ms"}),
    # bound parameters
    *(
        Request(IN | {"q": text, "params": parameters})
        for text, parameters in (
            ("SELECT voltage FROM tiger WHERE jig_id = $jig", '{"jig": "J-01"}'),
            ("SELECT voltage FROM tiger WHERE jig_id = $jig", '{"jig": "J-\'01\\" OR 1 = 1"}'),
            ("SELECT note FROM tiger WHERE note = $note", '{"note": "a \'quoted\' \\"word\\""}'),
            ("SELECT voltage FROM tiger WHERE voltage > $least", '{"least": 3.5}'),
            ("SELECT cycles FROM tiger WHERE cycles = $n", '{"n": 7}'),
            ("SELECT cycles FROM tiger WHERE cycles > $n", '{"n": 9007199254740993}'),
            ("SELECT voltage FROM tiger WHERE passed = $passed", '{"passed": false}'),
            ("SELECT voltage FROM tiger WHERE time >= $from AND time < $to",
             '{"from": "2024-01-31T00:00:00Z", "to": "2024-01-31T03:00:00Z"}'),
            ('SELECT voltage FROM tiger WHERE jig_id = $"a b"', '{"a b": "J-01"}'),
            ("SELECT voltage FROM tiger WHERE jig_id = $jig", '{"other": "J-01"}'),
            ("SELECT voltage FROM tiger WHERE jig_id = $jig", '{"jig": null}'),
            ("SELECT voltage FROM tiger WHERE jig_id = $jig", '{"jig": ["J-01"]}'),
            ("SELECT voltage FROM tiger WHERE jig_id = 'J-01'", ""),
            ("SELECT voltage FROM tiger WHERE jig_id = 'J-01' LIMIT 1", '{"unused": 1}'),
        )
    ),
    Request(
        {}, IN | {"q": "SELECT mean(voltage) FROM tiger WHERE jig_id = $j", "params": '{"j": "J-01"}'}, method="POST"
    ),
    # CSV
    *(
        Request(IN | {"q": text}, headers={"Accept": accepted})
        for text in (MOST, POINTS, "SELECT * FROM tiger WHERE jig_id = 'J-01' LIMIT 3",
                     "SELECT s FROM texts WHERE n > 1",  # not the blank, which Go quotes
                     "SELECT f FROM floats", f"{MOST}; {POINTS}; SHOW TAG KEYS", "SELECT voltage FROM nowhere",
                     "SELECT mean(note) FROM tiger", "SELEC", "SHOW DATABASES", "SHOW FIELD KEYS FROM tiger",
                     "SELECT count(same) FROM /odd/ GROUP BY *", "SELECT i FROM integers", "SELECT b FROM verdicts")
        for accepted in ("application/csv", "text/csv")
    ),
    Request(IN | {"q": "SELECT v FROM ancient", "epoch": "h"}, headers=CSV),
    Request(IN | {"q": MOST, "epoch": "s"}, headers=CSV), Request(IN | {"q": MOST, "chunked": "true"}, headers=CSV),
    *(Request(IN | {"q": MEAN}, headers={"Accept": accepted}) for accepted in ("*/*", "application/json", "text/html")),
]  # fmt: skip


class Comparison:
    """Counts what was compared."""

    def __init__(self) -> None:
        self.compared = 0
        self.different = 0

    def of(self, servers: Servers, request: Request) -> list[str]:
        """Return where the responses to one request differ."""
        theirs, ours = (ask(server, request) for server in servers)
        found = _compare(theirs, ours, str(request.parameters.get("q") or request.form.get("q", "")))
        self.compared += 1
        self.different += bool(found)
        return found


def _compare(theirs: httpx.Response, ours: httpx.Response, statement: str) -> list[str]:
    types = [response.headers["content-type"].partition(";")[0] for response in (theirs, ours)]
    if (theirs.status_code, types[0]) != (ours.status_code, types[1]):
        return [f"{theirs.status_code} {types[0]} {theirs.text[:300]} in InfluxDB; "
                f"{ours.status_code} {types[1]} {ours.text[:300]} here"]  # fmt: skip
    if types[0] == "application/json":
        bodies = [documents(response.text) for response in (theirs, ours)]
        if "integral(" in statement:
            # InfluxDB returns the series of this function in another order each time.
            bodies = [in_order(body) for body in bodies]
        return list(differences(*bodies, summed=bool(SUMMED.search(statement))))
    return [] if theirs.text == ours.text else [f"{theirs.text[:500]!r} in InfluxDB; {ours.text[:500]!r} here"]


def ask(server: httpx.Client, request: Request) -> httpx.Response:
    return server.request(
        request.method, "/query", params=dict(request.parameters), data=dict(request.form) or None,
        headers=dict(request.headers),
    )  # fmt: skip


@pytest.fixture(scope="module")
def comparison() -> Iterator[Comparison]:
    counted = Comparison()
    yield counted
    print(f"\n{counted.compared} requests compared with InfluxDB 1.6, {counted.different} of them with differences")


def kind(response: httpx.Response) -> str:
    """Return which list of statements.py a statement with this response belongs to."""
    body = response.json()
    results = body.get("results", ())
    if "error" in body or any("error" in result for result in results):
        return "REFUSED"
    return "RESPONDED" if any("series" in result for result in results) else "EMPTY"


@pytest.mark.parametrize(("expected", "statement"), CHOSEN, ids=[text for _, text in CHOSEN])
def test_a_statement_has_the_response_of_influxdb(
    both: Servers, comparison: Comparison, expected: str, statement: str
) -> None:
    request = Request({"db": DATABASE, "q": statement})
    assert kind(ask(both[0], request)) == expected
    assert comparison.of(both, request) == []


@pytest.mark.parametrize("request_", REQUESTS, ids=range(len(REQUESTS)))
def test_a_request_has_the_response_of_influxdb(both: Servers, comparison: Comparison, request_: Request) -> None:
    assert comparison.of(both, request_) == []


@pytest.mark.parametrize("draw", [statements, broken])
def test_drawn_statements_have_the_responses_of_influxdb(
    both: Servers, comparison: Comparison, pytestconfig: pytest.Config, draw: Callable[[int, int], Iterator[str]]
) -> None:
    count = pytestconfig.getoption("--influxql-statements") or DRAWN
    seed = pytestconfig.getoption("--influxql-seed") or 1
    failed = {}
    for statement in draw(seed, count):
        if statement.strip() in ON_PURPOSE:
            continue
        if found := comparison.of(both, Request({"db": DATABASE, "q": statement})):
            failed[statement] = found[:3]
    print(f"\n{count} {draw.__name__} of seed {seed}, {len(failed)} with differences")
    assert not failed, "\n\n".join("\n  ".join([statement, *found]) for statement, found in list(failed.items())[:20])


@pytest.mark.parametrize("statement", ON_PURPOSE)
def test_each_intended_difference_still_exists(both: Servers, statement: str) -> None:
    assert Comparison().of(both, Request({"db": DATABASE, "q": statement})) != []


def test_the_reference_page_lists_each_intended_difference() -> None:
    page = PAGE.read_text()
    assert [statement for statement in ON_PURPOSE if f"`{statement}`" not in page] == []
