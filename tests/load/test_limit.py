"""The limit of a load test, found from its own processor time and the service's response times."""

import httpx
import pytest

from factory_logs.load.limit import Measured, ServiceTimes, limit, service_times
from factory_logs.load.statistics import LoadCounts
from tests.client.servers import Server


def measured(
    *, own_cores: float = 0.5, busy: float | None = 0.5, service: float | None = None, retries: float = 0,
    processes: int = 2,
) -> Measured:  # fmt: skip
    """Return ten seconds of 10 devices on two cores; each request took 10 ms."""
    counts = LoadCounts(
        requests=1000, request_seconds=10.0, retry_seconds=retries, processor_seconds=10 * own_cores, stored=1000
    )
    return Measured(counts, 10.0, 10, processes, 2, busy, service)


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (measured(own_cores=1.8, busy=1.0, service=0.009), "loadtest itself: loadtest used 1.8 of 2 cores"),
        (measured(own_cores=0.9, processes=1), "loadtest itself: loadtest used 0.9 of 2 cores; raise --processes"),
        (measured(own_cores=0.9, busy=0.5, service=0.009), "the service: 9.0 of 10.0 ms of a request"),
        (
            measured(own_cores=1.2, busy=0.95, service=0.009),
            "the processors of this machine: loadtest used 1.2 of 2 cores, other programs 0.7",
        ),
        (measured(busy=0.84, service=0.005), "the service: 5.0 of 10.0 ms of a request passed in it; loadtest used"),
        (measured(busy=None, service=0.0049), "the link: only 4.9 of 10.0 ms of a request passed in the service"),
        (measured(busy=None, service=None), "the service or the link to it: loadtest used 0.5 of 2 cores"),
        (measured(own_cores=0.1, retries=51), "waits before retries: see the failed requests"),
        (measured(own_cores=1.8, retries=49), "loadtest itself"),
    ],
)
def test_the_limit_is_named_with_its_measures(run: Measured, expected: str) -> None:
    assert limit(run).startswith(expected)


def test_a_run_without_requests_has_a_limit_too() -> None:
    assert limit(Measured(LoadCounts(), 1.0, 1, 1, 2, None, None)).startswith("the service or the link")


def test_the_services_own_times_are_those_of_the_writes_between(shared_server: Server, token: str) -> None:
    log = {"app_name": "jig", "timestamp": "2024-01-31"}
    with httpx.Client(
        base_url=shared_server.url, headers={"Authorization": f"Token token={token}"}, timeout=60
    ) as http:
        before = service_times(http)
        for _ in range(3):
            assert http.post("v1/factory_logs", json=log).status_code == 201
        http.get("v1/factory_logs")
        after = service_times(http)
    assert before
    assert after
    assert after.count == before.count + 3
    assert (before.mean_until(after) or 0) > 0


def test_without_writes_there_is_no_mean() -> None:
    assert ServiceTimes(1, 2).mean_until(ServiceTimes(1, 2)) is None


@pytest.mark.parametrize("response", [httpx.Response(404), httpx.ConnectError("refused")])
def test_metrics_that_a_proxy_hides_are_unknown(response: httpx.Response | Exception) -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        if isinstance(response, Exception):
            raise response
        return response

    with httpx.Client(base_url="http://logs.test", transport=httpx.MockTransport(respond)) as http:
        assert service_times(http) is None
