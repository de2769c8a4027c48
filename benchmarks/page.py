"""How fast the page shows something: `uv run python -m benchmarks.page [--sizes 10000 10000000] [--live-seconds 30]`.

Needs Debian's chromium, and 1.5 GB of disk in /tmp for each million logs. For each size and view: seconds from the
start of the navigation, in a new browser context, until the view's first rows or chart are there, and until nothing is
loading any more; the first time, when no result is known, and the median of the others. Then live mode: a client stores
1,000 logs each second, and the page must count each of them.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from urllib.parse import quote

import httpx
from playwright.sync_api import Browser, Page, expect, sync_playwright
from rich.console import Console
from rich.table import Table

from benchmarks.growth import fill, month_ago
from benchmarks.harness import RESULTS, Service, service

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
TIMEOUT_MS = 120_000
LOGS_PER_SECOND = 1_000
LOGS_PER_REQUEST = 100

FIRST_PICTURE = {
    "logs": ".view tbody tr",
    "yield": ".view svg, .view tbody tr",
    "failures": ".view svg, .view tbody tr",
    "measurement": ".view svg, .view tbody tr",
}


def addresses(newest: str) -> dict[str, str]:
    """The state of each view: everything for the logs, the last 30 days for the results."""
    month = f"from={quote(month_ago(newest).replace(' ', 'T'))}Z&to={quote(newest.replace(' ', 'T'))}Z"
    return {
        "logs": "#/logs?range=all",
        "yield": f"#/yield?{month}",
        "failures": f"#/failures?{month}",
        "measurement": f"#/measurement?{month}&m=fields__battery__voltage",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 10_000_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--live-seconds", type=int, default=30)
    options = parser.parse_args()
    figures: dict[str, object] = {}
    table = Table("logs", "view", "first picture, first time", "complete", "first picture, again", "complete")
    for size in options.sizes:
        with service() as running:
            newest = asyncio.run(fill(running.database_url, size))
            with browser() as chromium:
                for view, address in addresses(newest).items():
                    first, *again = [visit(chromium, running, view, address) for _ in range(options.rounds + 1)]
                    picture, complete = (statistics.median(seconds) for seconds in zip(*again, strict=True))
                    seconds = (*first, picture, complete)
                    table.add_row(f"{size:,}", view, *(f"{each:.2f} s" for each in seconds))
                    figures[f"{view}, {size:,} logs"] = {"first": first, "again": again}
                if options.live_seconds:
                    figures[f"live, {size:,} logs"] = live(chromium, running, options.live_seconds)
    console = Console(width=110)
    console.print(table)
    for name, figure in figures.items():
        if name.startswith("live"):
            console.print(name, figure)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "page.json").write_text(json.dumps(figures, indent=2))


@contextmanager
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        raise SystemExit("chromium is needed: apt-get install chromium")
    with (
        sync_playwright() as playwright,
        closing(playwright.chromium.launch(executable_path=path, args=ARGUMENTS)) as chromium,
    ):
        yield chromium


@contextmanager
def opened(chromium: Browser, running: Service, address: str) -> Iterator[tuple[Page, float]]:
    """The page at an address in a new context, logged in, and when its navigation began."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(TIMEOUT_MS)
    context.add_init_script(f"sessionStorage.setItem('factory-logs-token', {json.dumps(running.token)})")
    page = context.new_page()
    started = time.perf_counter()
    page.goto(f"{running.url}/{address}", wait_until="commit")
    try:
        yield page, started
    finally:
        context.close()


def visit(chromium: Browser, running: Service, view: str, address: str) -> tuple[float, float]:
    """Seconds until the view's first picture, and until nothing is loading."""
    with opened(chromium, running, address) as (page, started):
        page.locator(FIRST_PICTURE[view]).first.wait_for()
        picture = time.perf_counter() - started
        page.locator(".view").wait_for()
        expect(page.locator("[aria-busy]")).to_have_count(0, timeout=TIMEOUT_MS)
        return round(picture, 3), round(time.perf_counter() - started, 3)


def live(chromium: Browser, running: Service, seconds: int) -> dict[str, object]:
    """Store logs at a steady rate; return how many were stored, and how far behind them the page was."""
    query = quote(json.dumps(["app_name", "==", "live"], separators=(",", ":")))
    stored = [0]
    behind: list[int] = []
    with opened(chromium, running, f"#/logs?range=all&live=1&f={query}") as (page, _):
        page.get_by_text("Live: 0 new").wait_for()
        writer = threading.Thread(target=write, args=(running, seconds, stored))
        writer.start()
        while writer.is_alive():
            page.wait_for_timeout(1000)
            before = stored[0]
            shown = shown_count(page)
            behind.append(max(0, before - shown))
        deadline = time.monotonic() + 60
        while shown_count(page) < stored[0] and time.monotonic() < deadline:
            page.wait_for_timeout(100)
        return {"stored": stored[0], "shown": shown_count(page), "behind, each second": behind}


def shown_count(page: Page) -> int:
    text = page.locator(".live-total").first.text_content() if page.locator(".live-total").count() else "0"
    return int((text or "0").replace(",", ""))


def write(running: Service, seconds: int, stored: list[int]) -> None:
    """Store LOGS_PER_SECOND for so long; `stored[0]` counts the acknowledged ones."""
    headers = {"Authorization": f"Token token={running.token}"}
    with httpx.Client(base_url=running.url, headers=headers, timeout=60) as client:
        started = time.monotonic()
        for batch in range(seconds * LOGS_PER_SECOND // LOGS_PER_REQUEST):
            time.sleep(max(0.0, started + batch * LOGS_PER_REQUEST / LOGS_PER_SECOND - time.monotonic()))
            moment = datetime.now(UTC).isoformat()
            logs = [
                {"app_name": "live", "timestamp": moment, "fields": {"passed": number % 50 > 0, "number": number}}
                for number in range(batch * LOGS_PER_REQUEST, (batch + 1) * LOGS_PER_REQUEST)
            ]
            client.post("/v1/factory_logs", json=logs).raise_for_status()
            stored[0] += len(logs)


if __name__ == "__main__":
    main()
