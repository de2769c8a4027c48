"""Benchmark of `factory-logs loadtest`: `uv run python -m benchmarks.loadtest [--rounds 5] [--seconds 5]`. Needs wrk.

Its devices are simulated in Python and share the machine with the service, so it compares the rate of single logs with
that of wrk, which is written in C. Like the devices, wrk can send an Idempotency-Key with each log.
"""

import argparse
import json
import os
import re
import statistics
import subprocess

from benchmarks.harness import Service, interleaved, ratio, report, service, wrk
from benchmarks.writes import log, posting

DEVICES = 50
_UNIQUE_KEYS = """
local start, count = tostring(os.time()) .. "-" .. tostring(math.random(1e9)) .. "-", 0
function request()
  count = count + 1
  headers["Idempotency-Key"] = start .. count
  return wrk.format("POST", nil, headers, bodies[count % #bodies + 1])
end
"""


def by_wrk(running: Service, seconds: int, *, keys: bool) -> float:
    script = posting([json.dumps(log(number)).encode() for number in range(500)], running.token, "application/json")
    url = f"{running.url}/v1/factory_logs"
    return wrk(url, script + (_UNIQUE_KEYS if keys else ""), connections=DEVICES, seconds=seconds).per_second


def by_loadtest(running: Service, seconds: int) -> float:
    ran = subprocess.run(
        ["factory-logs", "loadtest", "--url", running.url, "--devices", str(DEVICES), "--duration", f"{seconds}s"],
        env=os.environ | {"FACTORY_LOGS_TOKEN": running.token, "COLUMNS": "160"},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    rate = re.search(r"logs a second\s*│\s*([\d,]+)", ran.stdout)
    limit = re.search(r"limit\s*│\s*(.*?)\s*│", ran.stdout)
    if rate is None or limit is None:
        raise RuntimeError(f"cannot read what loadtest printed:\n{ran.stdout}")
    print(f"loadtest: {rate[1]} logs/s; limit: {limit[1]}")
    return float(rate[1].replace(",", ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    options = parser.parse_args()
    with service(workers=os.cpu_count() or 1) as running:
        contenders = {
            "loadtest": lambda: by_loadtest(running, options.seconds),
            "wrk": lambda: by_wrk(running, options.seconds, keys=False),
            "wrk with keys": lambda: by_wrk(running, options.seconds, keys=True),
        }
        figures = interleaved(contenders, options.rounds)
    table = [
        {
            "benchmark": "loadtest, single logs, 50 devices", "against": peer,
            "ratio": round(ratio(figures, "loadtest", peer), 2),
            "measured": round(statistics.median(figures["loadtest"])), "peer": round(statistics.median(figures[peer])),
        }
        for peer in ("wrk", "wrk with keys")
    ]  # fmt: skip
    report("loadtest", table, {"logs per second": figures})


if __name__ == "__main__":
    main()
