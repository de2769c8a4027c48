"""Hostile values stay text, every view is accessible at every size and colour scheme, slow calls can be cancelled."""

import json
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, Route, expect

from tests.web.conftest import HOSTILE, LOGS, TIME, Open, Service, accessible, filters, picture, shown

IMEI = "352099009999999"
OLD = "from=2020-02-01T00:00:00.000Z&to=2020-02-03T00:00:00.000Z"
VIEWS = {
    "logs": f"#/logs?{TIME}&log=1" + filters(["app_name", "not ==", "x"]),
    "yield": f"#/yield?{TIME}&by=tags__jig_id",
    "failures": f"#/failures?{TIME}",
    "measurement": f"#/measurement?{TIME}&m=fields__output_12v__value&lower=11.4&upper=12.6",
    "unit": f"#/unit?imei={next(log['product_imei'] for log in LOGS if log['repair_id'])}",
}


def assert_text_only(page: Page) -> None:
    shown(page)
    assert page.title() != "taken"
    for selector in ("body img", "body script", "body iframe", "[onerror]", "[onclick]"):
        assert page.locator(selector).count() == 0, selector
    assert page.evaluate("document.scripts.length") == 1


def test_hostile_values_of_logs_are_text_in_every_view(visit: Open, site: Service) -> None:
    log = {
        "app_name": HOSTILE, "product_imei": IMEI, "timestamp": "2020-02-01T10:00:00",
        "tags": {"jig_id": HOSTILE, HOSTILE: HOSTILE, "constructor": "x", "__proto__": {"a": HOSTILE}},
        "fields": {"passed": False, HOSTILE: {"pass": False, "value": 1.5}, "note": [HOSTILE], "id": 2**63 - 1},
    }  # fmt: skip
    repair = {"product_imei": IMEI, "outcome": HOSTILE, "pending_status": HOSTILE, "arrival_date": "2020-01-01"}
    site.post("/v1/factory_logs", [log, log | {"timestamp": "2020-02-01T11:00:00"}])
    site.post("/v1/repairs", repair)
    measurement = f"fields__{HOSTILE}__value"
    page = visit(f"#/logs?{OLD}&cols=timestamp,app_name," + quote(f"tags__{HOSTILE}"))
    expect(page.locator(".facets")).to_contain_text(HOSTILE)
    expect(page.locator("table.logs")).to_contain_text(HOSTILE)
    assert_text_only(page)
    page.locator("table.logs tbody a").first.click()
    detail = page.locator(".detail")
    expect(detail).to_contain_text(HOSTILE)
    expect(detail).to_contain_text(str(2**63 - 1))  # exact, although a double cannot represent it
    assert_text_only(page)
    page.locator(".facet-value").first.click()
    expect(page.locator(".chip")).to_contain_text(HOSTILE)
    assert_text_only(page)
    page.get_by_text("API calls and downloads").click()
    expect(page.locator(".call").first).to_be_visible()
    assert_text_only(page)
    states = [
        f"#/yield?{OLD}", f"#/failures?{OLD}", f"#/measurement?{OLD}&m={quote(measurement)}&by=app_name",
        f"#/unit?imei={IMEI}",
    ]  # fmt: skip
    for state in states:
        page.evaluate("state => { location.hash = state }", state)
        expect(page.locator(".view")).to_contain_text("<img src=x")
        assert_text_only(page)


@pytest.mark.parametrize(
    "name", ["f", "q", "by", "m", "cols", "sort", "facets", "log", "imei", "range", "from", "lower"]
)
def test_hostile_urls_are_text(visit: Open, name: str) -> None:
    view = {"by": "yield", "m": "measurement", "imei": "unit", "lower": "measurement"}.get(name, "logs")
    value = json.dumps([HOSTILE, "==", HOSTILE]) if name == "f" else HOSTILE
    page = visit(f"#/{view}?{TIME}&{'m=fields__output_12v__value&' if name == 'lower' else ''}{name}={quote(value)}")
    assert_text_only(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(360, 760), (1440, 900)])
def test_each_view_is_accessible_and_fits_the_screen(visit: Open, scheme: str, width: int, height: int) -> None:
    page = visit("", login=False, viewport={"width": width, "height": height}, color_scheme=scheme)
    expect(page.get_by_label("User")).to_be_visible()
    accessible(page)
    page = visit(VIEWS["logs"], viewport={"width": width, "height": height}, color_scheme=scheme)
    for name, state in VIEWS.items():
        page.evaluate("state => { location.hash = state }", state)
        expect(page.locator("nav [aria-current]")).to_have_text(name.title())
        shown(page)
        accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        picture(page, f"{name}-{width}-{scheme}")


def test_the_theme_can_be_chosen(visit: Open) -> None:
    page = visit(color_scheme="light")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Theme: system").click()
    page.get_by_role("button", name="Theme: light").click()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    assert page.evaluate(ground) != light
    page.reload()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()


def test_a_slow_call_is_shown_and_can_be_cancelled_without_losing_the_rows(visit: Open) -> None:
    page = visit(f"#/failures?{TIME}")
    held: list[Route] = []
    page.route("**/v1/factory_logs/stats*", lambda route: held.append(route))
    page.evaluate("state => { location.hash = state }", f"#/logs?{TIME}")
    bars = page.get_by_role("region", name="Over time")
    expect(bars.get_by_role("button", name="Cancel")).to_be_visible()
    expect(page.locator("table.logs tbody a").first).to_be_visible()
    bars.get_by_role("button", name="Cancel").click()
    expect(bars).to_contain_text("Cancelled")
    page.unroute("**/v1/factory_logs/stats*")
    bars.get_by_role("button", name="Try again").click()
    expect(bars.locator(".chart svg")).to_be_visible()


def test_an_unreachable_service_has_a_message_and_an_ended_token_leads_to_the_login(visit: Open) -> None:
    page = visit(f"#/failures?{TIME}")
    page.route("**/v1/**", lambda route: route.abort())
    page.evaluate("state => { location.hash = state }", f"#/logs?{TIME}")
    expect(page.get_by_text("The service cannot be reached").first).to_be_visible()
    page.unroute("**/v1/**")
    page.evaluate("sessionStorage.setItem('factory-logs-token', 'ended')")
    page.get_by_role("button", name="Try again").first.click()
    expect(page.get_by_role("alert")).to_contain_text("unknown, revoked or expired")
    assert page.url.endswith(TIME)
