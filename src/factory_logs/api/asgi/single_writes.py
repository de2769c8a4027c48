"""Store one log without a task: the shortest way from a request that has arrived whole to its response.

A task, its coroutines and its wake-up take a fifth of a worker's time for a single write
(docs/explanation/hot-path.md). Nearly all single writes can do without: the token is cached, and the log is valid. For
such a request, functions of the route return the log and its responses. The dispatcher passes the log to group commit
with a receiver in place of a future; the receiver sends the response. The route's endpoint serves all other requests.

A route has two functions. The first one reads the head, and its result is kept for requests that repeat the head
(parsed_head.py). It returns the second one, which reads the body.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from factory_logs.api.services import Services
from factory_logs.errors import FactoryLogsError
from factory_logs.ingest.idempotency import WriteKey
from factory_logs.ingest.single_records import Stored
from factory_logs.ingest.validation import NewLog
from factory_logs.permissions import CurrentUser

LARGEST_BODY = 16 * 1024
"""The maximum size of a body in bytes. Larger bodies count towards the limit on the memory of a worker's bodies."""


class Head(NamedTuple):
    """The head of a request. No header occurs twice, and the body is not compressed."""

    scope: Scope
    headers: Mapping[bytes, bytes]


class SingleWrite(NamedTuple):
    """A log to store, the response if it is stored, and the response to an error of group commit."""

    log: NewLog
    respond: Callable[[Stored], Response]
    refuse: Callable[[Request, FactoryLogsError], Response]
    key: WriteKey | None = None


ReadBody = Callable[[bytearray, CurrentUser, Services], SingleWrite | None]
"""Returns the single write of a body of a user that may store logs, or None if the endpoint must serve the request.

Any error has the same effect as None: the endpoint raises it again and responds.
"""
ReadHead = Callable[[Head], ReadBody | None]
"""Returns the function for the bodies of requests with this head, or None. Errors are as for `ReadBody`."""
Endpoint = TypeVar("Endpoint", bound=Callable[..., object])
_readers: dict[object, ReadHead] = {}


def single_write(read: ReadHead) -> Callable[[Endpoint], Endpoint]:
    """Return a decorator for an endpoint: `read` reads the heads of its single writes."""

    def register(endpoint: Endpoint) -> Endpoint:
        _readers[endpoint] = read
        return endpoint

    return register


def reader_of(endpoint: object) -> ReadHead | None:
    """Return the function that reads the heads of single writes for a route with this endpoint, or None."""
    return _readers.get(endpoint)
