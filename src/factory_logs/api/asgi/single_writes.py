"""Store one log without a task: the shortest way from a request that has arrived whole to its response.

A task, its coroutines and its wake-up take a fifth of a worker's time for a single write
(docs/explanation/hot-path.md). Nearly all single writes can do without: the token is cached, and the log is valid. For
such a request, a function of the route returns the log and its responses. The dispatcher passes the log to group commit
with a receiver in place of a future; the receiver sends the response. The route's endpoint serves all other requests.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from factory_logs.api.services import Services
from factory_logs.errors import FactoryLogsError
from factory_logs.ingest.single_records import Stored
from factory_logs.ingest.validation import NewLog
from factory_logs.permissions import CurrentUser

LARGEST_BODY = 16 * 1024
"""The maximum size of a body in bytes. Larger bodies count towards the limit on the memory of a worker's bodies."""
OTHER_HEADERS = frozenset((b"content-encoding", b"idempotency-key"))
"""The headers of requests that only the endpoint can serve."""


class WholeRequest(NamedTuple):
    """A request whose body has arrived, of a user that may store logs. No header occurs twice."""

    scope: Scope
    headers: Mapping[bytes, bytes]
    body: bytearray
    user: CurrentUser
    services: Services


class SingleWrite(NamedTuple):
    """A log to store, the response if it is stored, and the response to an error of group commit."""

    log: NewLog
    respond: Callable[[Stored], Response]
    refuse: Callable[[Request, FactoryLogsError], Response]


ReadSingleWrite = Callable[[WholeRequest], SingleWrite | None]
"""Returns the single write of a request, or None if the endpoint must serve the request.

Any error has the same effect as None: the endpoint raises it again and responds.
"""
Endpoint = TypeVar("Endpoint", bound=Callable[..., object])
_readers: dict[object, ReadSingleWrite] = {}


def single_write(read: ReadSingleWrite) -> Callable[[Endpoint], Endpoint]:
    """Return a decorator for an endpoint: `read` reads the single writes of its route."""

    def register(endpoint: Endpoint) -> Endpoint:
        _readers[endpoint] = read
        return endpoint

    return register


def reader_of(endpoint: object) -> ReadSingleWrite | None:
    """Return the function that reads the single writes of a route with this endpoint, or None."""
    return _readers.get(endpoint)
