"""Find the limit of a load test: its own processes, the machine, the service, or the network
(docs/how-to/loadtest.md)."""

import re
from dataclasses import dataclass

import httpx

from factory_logs.load.statistics import LoadCounts

FULL = 0.85
"""If the processors are busier than this, they count as the limit. Measured shares are a few percent too low."""
_SAMPLE = re.compile(r"^factory_logs_request_seconds_(sum|count)\{([^}]*)\} (\S+)$", re.MULTILINE)
_OF_WRITES = ('method="POST"', 'route="/v1/factory_logs"')


@dataclass(frozen=True, slots=True)
class ServiceTimes:
    """The service's own measurement of its writes since its start: their number and their total seconds."""

    count: float
    seconds: float

    def mean_until(self, later: "ServiceTimes") -> float | None:
        """Return the mean seconds of the writes between both measurements, or None if there were none."""
        count = later.count - self.count
        return (later.seconds - self.seconds) / count if count > 0 else None


def service_times(http: httpx.Client) -> ServiceTimes | None:
    """Return the service's own measurement of its writes, or None if this machine may not read `/metrics`."""
    try:
        response = http.get("metrics")
    except httpx.TransportError:
        return None
    if response.status_code != 200:
        return None
    found = {
        kind: float(value)
        for kind, labels, value in _SAMPLE.findall(response.text)
        if all(label in labels for label in _OF_WRITES)
    }
    return ServiceTimes(found.get("count", 0.0), found.get("sum", 0.0))


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements of a run from which its limit is derived."""

    counts: LoadCounts
    elapsed_seconds: float
    devices: int
    processes: int
    cores: int
    machine_busy: float | None
    """The share of this machine's processor time that all programs use, or None if it is unknown."""
    service_seconds: float | None
    """The mean time of a write in the service by its own measurement, or None if it is unknown."""

    @property
    def own_cores(self) -> float:
        """The average number of cores that the load test has used."""
        return self.counts.processor_seconds / self.elapsed_seconds

    @property
    def request_seconds(self) -> float:
        """The mean time of a request, as the devices see it."""
        return self.counts.request_seconds / max(1, self.counts.requests)


def limit(measured: Measured) -> str:
    """Return the reason why the rate was not higher, and how to find out more."""
    counts = measured.counts
    own = f"loadtest used {measured.own_cores:.1f} of {measured.cores} cores"
    if counts.retry_seconds > measured.elapsed_seconds * measured.devices / 2:
        return "waits before retries: see the failed requests"
    if measured.own_cores >= FULL * min(measured.processes, measured.cores):
        return f"loadtest itself: {own}; raise --processes, or run it on another machine"
    if measured.machine_busy is not None and measured.machine_busy >= FULL:
        others = max(0.0, measured.machine_busy * measured.cores - measured.own_cores)
        return f"the processors of this machine: {own}, other programs {others:.1f}"
    if measured.service_seconds is None:
        return f"the service or the link to it: {own}"
    took = f"{measured.service_seconds * 1000:,.1f} of {measured.request_seconds * 1000:,.1f} ms of a request"
    if measured.service_seconds >= measured.request_seconds / 2:
        return f"the service: {took} passed in it; {own}"
    return f"the link: only {took} passed in the service; {own}"
