"""Random sequences of writes and reads, compared with a model in plain Python.

By default the same few sequences run; `--stateful-examples 1000` draws that many new ones.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from factory_logs.db.engine import Database
from tests.api.model import BAD_LOGS, FIELDS, FILTERS, GOOD_LOGS, ORDERS, REPAIRS, Filter, Model, Record, Request
from tests.locking import execute_again_after_deadlock

pytestmark = pytest.mark.slow

EXAMPLES = 35
STEPS = 20
LOGS, REPAIRS_PATH = "/v1/factory_logs", "/v1/repairs"
JSON, NDJSON = "application/json", "application/x-ndjson"
EMPTY = "truncate factory_logs, repairs, idempotency_keys, known_counts, retention_runs restart identity"

KEYS = st.none() | st.sampled_from(["first", "second", "third"])
SIZES = st.integers(1, 5)
WHICH = st.integers(0, 2)
Order = tuple[str, str] | None
Call = Callable[..., httpx.Response]


@dataclass
class Traversal:
    """A traversal in progress: the records left to return, and the URL of its next page, None at the end."""

    left: list[int]
    total: int
    next_url: str | None


class Machine(RuleBasedStateMachine):
    """Each rule sends one request and compares the response with the model's."""

    def __init__(self, call: Call, empty: Callable[[], None]) -> None:
        super().__init__()
        empty()
        self._call = call
        self._model = Model()
        self._traversals: list[Traversal] = []

    def call(self, method: str, url: str, **options: Any) -> httpx.Response:
        response = self._call(method, url, **options)
        assert response.status_code < 500, response.text
        return response

    def write(self, request: Request, key: str | None, status: int) -> Any:
        """Return the JSON of the first response to a key, with `status`, or None if the write must store nothing."""
        headers = {"Content-Type": request.content_type} | ({} if key is None else {"Idempotency-Key": key})
        params = {} if request.on_error is None else {"on_error": request.on_error}
        response = self.call("POST", request.path, content=request.content, headers=headers, params=params)
        first = None if key is None else self._model.keys.get(key)
        if first is not None:
            same = first[0] == request
            assert response.status_code == (201 if same else 409), response.text
            assert ("Idempotency-Replayed" in response.headers) == same
            assert not same or response.content == first[1]
            return None
        assert response.status_code == status, response.text
        assert "Idempotency-Replayed" not in response.headers
        if key is not None and status == 201:
            self._model.keys[key] = request, response.content
        return response.json()

    @initialize(repair=REPAIRS, logs=st.lists(GOOD_LOGS, min_size=5, max_size=10), lines=st.booleans())
    def begin_with_some(self, repair: Record, logs: list[Record], lines: bool) -> None:
        self.write_a_repair(repair, None)
        self.write_many(logs, 1, lines, False, "first")

    @rule(sent=GOOD_LOGS | GOOD_LOGS | BAD_LOGS, repair=st.integers(0, 3), key=KEYS)
    def write_one(self, sent: Any, repair: int, key: str | None) -> None:
        if not self._model.is_good(sent):
            request = Request(LOGS, JSON, json.dumps(sent or {}).encode())
            assert self.write(request, None, 400)["errors"]
            return
        log = self._of_a_repair(sent, repair)
        made = self.write(Request(LOGS, JSON, json.dumps(log).encode()), key, 201)
        if made is not None:
            self._model.keep(made["factory_log_id"], log)
            self._same_log(made)

    @rule(
        sent=st.lists(GOOD_LOGS | BAD_LOGS, max_size=5) | st.lists(GOOD_LOGS, max_size=5),
        repair=st.integers(0, 3), lines=st.booleans(), skip=st.booleans(), key=KEYS,
    )  # fmt: skip
    def write_many(self, sent: list[Any], repair: int, lines: bool, skip: bool, key: str | None) -> None:
        logs = [self._of_a_repair(log, repair) if self._model.is_good(log) else log for log in sent]
        bad = [number for number, log in enumerate(logs) if not self._model.is_good(log)]
        if bad and not skip:
            key = None  # either of the two errors may be reported
        body = "\n".join(map(json.dumps, logs)) if lines else json.dumps(logs)
        request = Request(LOGS, NDJSON if lines else JSON, body.encode(), "skip" if skip else None)
        response = self.write(request, key, 400 if bad and not skip else 201)
        if response is None:
            return
        if bad or skip:
            assert sorted({error["index"] for error in response["errors"]}) == bad
        if bad and not skip:
            return
        good = [log for number, log in enumerate(logs) if number not in bad]
        ids = response["ids"]
        assert (response["num_created"], response.get("num_rejected")) == (len(good), len(bad) if skip else None)
        assert (response["first_id"], response["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
        for number, log in zip(ids, good, strict=True):
            self._model.keep(number, log)

    @rule(sent=REPAIRS, key=KEYS)
    def write_a_repair(self, sent: Record, key: str | None) -> None:
        made = self.write(Request(REPAIRS_PATH, JSON, json.dumps(sent).encode()), key, 201)
        if made is not None:
            assert made["repair_id"] not in self._model.repairs
            assert made.items() >= sent.items()
            self._model.repairs[made["repair_id"]] = made

    @rule(which=WHICH, otherwise=st.booleans())
    def write_again(self, which: int, otherwise: bool) -> None:
        """Repeat a write with its key, either unchanged or with the other `on_error`, which makes it a different
        request."""
        if not self._model.keys:
            return
        key = sorted(self._model.keys)[which % len(self._model.keys)]
        request = self._model.keys[key][0]
        if otherwise and request.is_batch:
            request = request._replace(on_error=None if request.on_error else "skip")
        assert self.write(request, key, 201) is None

    @rule(log=st.integers(1, 25), repair=st.integers(1, 4))
    def read_by_id(self, log: int, repair: int) -> None:
        response = self.call("GET", f"{LOGS}/{log}")
        assert response.status_code == (200 if log in self._model.logs else 404)
        if response.status_code == 200:
            self._same_log(response.json())
        response = self.call("GET", f"{REPAIRS_PATH}/{repair}")
        assert response.status_code == (200 if repair in self._model.repairs else 404)
        assert response.status_code == 404 or response.json() == self._model.repairs[repair]

    @rule(filters=FILTERS, order=ORDERS, page=st.integers(1, 3), size=SIZES)
    def read_a_page(self, filters: list[Filter], order: Order, page: int, size: int) -> None:
        found = self._model.found(filters, order)
        body = self.ask(filters, order, page=page, results_per_page=size).json()
        assert (body["num_results"], body["total_pages"]) == (len(found), -(-len(found) // size))
        self._same_logs(body["objects"], found[(page - 1) * size : page * size])

    @rule(filters=FILTERS, order=ORDERS)
    def export_and_count(self, filters: list[Filter], order: Order) -> None:
        found = self._model.found(filters, order)
        lines = self.ask(filters, order, accept=NDJSON).text.splitlines()
        self._same_logs([json.loads(line) for line in lines], found)
        logs = [self._model.logs[number] for number in found]
        expected = Counter((log["timestamp"][:13] + ":00:00", log["app_name"]) for log in logs)
        buckets = self.ask(filters, None, f"{LOGS}/stats", bucket="1h", by="app_name").json()["buckets"]
        assert Counter({(row["bucket"], row["app_name"]): row["count"] for row in buckets}) == expected

    @rule(filters=FILTERS, order=ORDERS, size=SIZES, begin=st.booleans(), which=WHICH, to_its_end=st.booleans())
    def traverse(
        self, filters: list[Filter], order: Order, size: int, begin: bool, which: int, to_its_end: bool
    ) -> None:
        """Begin a traversal, or continue one that began before other requests."""
        under_way = [traversal for traversal in self._traversals if traversal.next_url]
        if begin or not under_way:
            found = self._model.found(filters, order)
            traversal = Traversal(found, len(found), None)
            self._read_next_page(traversal, self.ask(filters, order, cursor="", results_per_page=size))
            self._traversals.append(traversal)
            return
        traversal = under_way[which % len(under_way)]
        while traversal.next_url is not None:
            self._read_next_page(traversal, self.call("GET", traversal.next_url))
            if not to_its_end:
                return

    @invariant()
    def everything_is_there_once(self) -> None:
        assert self.ask([], None, results_per_page=1).json()["num_results"] == len(self._model.logs)

    def ask(
        self, filters: list[Filter], order: Order, path: str = LOGS, accept: str = JSON, **params: Any
    ) -> httpx.Response:
        q: Record = {"filters": [one.q for one in filters]}
        if order is not None:
            q["order_by"] = [{"field": order[0], "direction": order[1]}]
        response = self.call("GET", path, params={"q": json.dumps(q), **params}, headers={"Accept": accept})
        assert response.status_code == 200, response.text
        return response

    def _of_a_repair(self, sent: Record, number: int) -> Record:
        """Return the log, with the id of the repair if there is one."""
        return sent | {"repair_id": number} if number in self._model.repairs else sent

    def _same_log(self, shown: Record) -> None:
        """Compare the metadata with the metadata of the first response."""
        stored = self._model.logs[shown["factory_log_id"]]
        assert {name: shown[name] for name in FIELDS} == {name: stored[name] for name in FIELDS}
        assert shown["created_by"] == "system"
        assert stored.setdefault("created_at", shown["created_at"]) == shown["created_at"]

    def _same_logs(self, shown: list[Record], ids: list[int]) -> None:
        assert [log["factory_log_id"] for log in shown] == ids
        for log in shown:
            self._same_log(log)

    def _read_next_page(self, traversal: Traversal, response: httpx.Response) -> None:
        """A traversal returns the records that existed at its beginning, even if others are written meanwhile."""
        assert response.status_code == 200, response.text
        body = response.json()
        assert body["num_results"] == traversal.total
        shown = len(body["objects"])
        self._same_logs(body["objects"], traversal.left[:shown])
        traversal.left = traversal.left[shown:]
        traversal.next_url = response.links["next"]["url"] if "next" in response.links else None
        assert traversal.next_url is not None or traversal.left == []


async def test_the_service_responds_as_the_model_does(
    client: httpx.AsyncClient, database: Database, pytestconfig: pytest.Config
) -> None:
    loop = asyncio.get_running_loop()
    asked: int | None = pytestconfig.getoption("--stateful-examples")

    async def empty() -> None:
        await execute_again_after_deadlock(database, EMPTY)

    def machine() -> Machine:
        return Machine(
            lambda method, url, **options: asyncio.run_coroutine_threadsafe(
                client.request(method, url, **options), loop
            ).result(60),
            lambda: asyncio.run_coroutine_threadsafe(empty(), loop).result(60),
        )

    profile = settings(
        max_examples=asked or EXAMPLES, stateful_step_count=STEPS, derandomize=asked is None, database=None,
        deadline=None, print_blob=True, suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    await asyncio.to_thread(run_state_machine_as_test, machine, settings=profile)
