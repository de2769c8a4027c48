"""The page in a real browser, with a real service and the example data.

It needs Chromium (Debian: `apt-get install chromium-headless-shell`, or `chromium`); without it these tests are
skipped. The headless shell is the same engine without windows and needs 40% of the CPU time. The tests wait for content
to appear, never for a fixed time.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests import forked
from tests.serving import free_port, serving

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SCREENSHOTS = ROOT / "test-screenshots"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "chromium-browser"))), None)
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
USER, PASSWORD = "ann", "correct horse battery staple"
WAIT_MS = 60_000
"""The time limit of a wait. Only a machine that is busy with other tests needs so long."""

LOGS = [json.loads(line) for line in (EXAMPLES / "factory_logs.ndjson").read_text().splitlines()]
TIME = "from=2024-01-29T00:00:00.000Z&to=2024-02-01T00:00:00.000Z"
"""The time range of all examples. Logs that tests store are older."""
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
HOSTILE = (
    "<img src=x onerror=\"document.title='taken'\"></script><script>document.title='taken'</script>'\"&amp;{{7*7}}"
)


Log = dict[str, Any]


def number(selects: Callable[[Log], object]) -> str:
    """Return the number of selected example logs, in the format of the page."""
    return f"{sum(bool(selects(log)) for log in LOGS):,}"


def filters(*each: list[object]) -> str:
    """Return the part of an address that holds clicked filters."""
    return "".join(f"&f={quote(json.dumps(one, separators=(',', ':')))}" for one in each)


class Service(NamedTuple):
    """The address of the service, and a token of level SYSTEM."""

    url: str
    token: str

    def post(self, path: str, body: object) -> None:
        """Store some records."""
        headers = {"Authorization": f"Token token={self.token}"}
        httpx.post(self.url + path, json=body, headers=headers, timeout=60).raise_for_status()


def command(environment: dict[str, str], *arguments: str, stdin: str = "") -> str:
    """Run `factory-logs`; return what it writes on stdout."""
    ran = forked.run(*arguments, environment=os.environ | environment, stdin=stdin)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="session")
def site(shared_short_tmp: Path) -> Iterator[Service]:
    """A service with its embedded PostgreSQL, the example data and the user `ann`."""
    environment = {"FACTORY_LOGS_DATA_DIR": str(shared_short_tmp / "page-data")}
    port = free_port()
    with serving(environment, port, shared_short_tmp / "page-output"):
        command(environment, "import", "--table", "repairs", str(EXAMPLES / "repairs.csv"))
        command(environment, "import", str(EXAMPLES / "factory_logs.ndjson"))
        command(environment, "users", "create", USER, "--permission", "SYSTEM", stdin=f"{PASSWORD}\n")
        token = command(environment, "tokens", "issue", USER, "--expires-in", "12h").strip()
        yield Service(f"http://127.0.0.1:{port}", token)


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """One browser for all tests of the page. It keeps an event loop running, which no other test could bear."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium: apt-get install chromium-headless-shell")
    with (
        sync_playwright() as playwright,
        closing(playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)) as browser,
    ):
        yield browser


Open = Callable[..., Page]


@pytest.fixture
def visit(chromium: Browser, site: Service) -> Iterator[Open]:
    """Open the page at a state, logged in; fail the test at its end if the browser reports any error."""
    problems: list[str] = []
    contexts = []

    def visit(state: str = f"#/logs?{TIME}", *, login: bool = True, **options: Any) -> Page:
        options = {"viewport": {"width": 1440, "height": 900}, "timezone_id": "Asia/Shanghai"} | options
        context = chromium.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(WAIT_MS)
        expect.set_options(timeout=WAIT_MS)
        if login:
            context.add_init_script(f"sessionStorage.setItem('factory-logs-token', {json.dumps(site.token)})")
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"{site.url}/{state}")
        if login:
            shown(page)
        return page

    yield visit
    for context in contexts:
        context.close()
    # Errors that a test causes on purpose: a refused login, a missing log.
    assert [text for text in problems if "Failed to load resource" not in text] == []


def shown(page: Page) -> None:
    """Wait until the view has loaded."""
    expect(page.locator(".view")).to_be_visible()
    expect(page.locator("[aria-busy]")).to_have_count(0)


def accessible(page: Page) -> None:
    """Check that axe-core finds nothing. It needs `npm ci`; without that the check is skipped."""
    if not AXE.exists():
        return
    page.evaluate(AXE.read_text())
    result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    found = [(each["id"], [node["html"][:200] for node in each["nodes"]]) for each in result["violations"]]
    assert not found, found


def picture(page: Page, name: str) -> None:
    """Save a screenshot as an artefact of the test run."""
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")
