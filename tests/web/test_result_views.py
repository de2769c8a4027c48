"""User actions in the views of yield, failures, a measurement and a unit."""

import json
import re
from collections import Counter
from datetime import datetime, timedelta
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import expect

from tests.web.conftest import LOGS, TIME, Open, Service, filters, number, picture, shown


def failed(name: str, app: str) -> int:
    return sum(log["app_name"] == app and log["fields"].get(name, {}).get("pass") is False for log in LOGS)


def test_links_lead_from_the_worst_yield_to_its_failures_measurement_and_logs(visit: Open) -> None:
    tiger = "tiger_test_jig_production"
    page = visit(f"#/yield?{TIME}&by=tags__jig_id" + filters(["app_name", "==", tiger]))
    picture(page, "yield-1440-light")
    worst = page.get_by_role("region", name="Yield by tags__jig_id").locator("tbody tr").first
    expect(worst).to_contain_text("J-07")
    worst.get_by_role("link", name="Why J-07 failed").click()
    expect(page.get_by_role("link", name="Failures", exact=True)).to_have_attribute("aria-current", "page")
    shown(page)
    failure = page.get_by_role("region", name="Failures").locator("tbody tr").first
    expect(failure).to_contain_text("output_12v")
    failure.get_by_role("link", name="output_12v", exact=True).click()
    expect(page).to_have_url(re.compile("m=fields__output_12v__value"))
    page.get_by_label("Lower limit").fill("11.4")
    page.get_by_label("Upper limit").fill("12.6")
    below = page.get_by_role("link", name=re.compile(r"logs are below 11.4"))
    expect(below).to_be_visible()
    expect(page).to_have_url(re.compile("lower=11.4&upper=12.6"))
    shown(page)
    picture(page, "measurement-1440-light")
    expected = sum(
        log["app_name"] == tiger and log["tags"]["jig_id"] == "J-07" and log["fields"]["output_12v"]["value"] < 11.4
        for log in LOGS
    )
    expect(below).to_have_text(f"{expected} logs are below 11.4")
    below.click()
    expect(page.locator(".tally strong")).to_have_text(str(expected))


def test_a_row_leads_to_its_own_logs_if_several_values_are_included(visit: Open) -> None:
    jigs = [["tags__jig_id", "==", "J-07"], ["tags__jig_id", "==", "J-01"]]
    page = visit(f"#/yield?{TIME}&by=tags__jig_id" + filters(*jigs))
    page.get_by_role("region", name="Yield by tags__jig_id").get_by_role("link", name="J-07", exact=True).click()
    expect(page.locator(".tally strong")).to_have_text(number(lambda log: log["tags"]["jig_id"] == "J-07"))


def test_a_bucket_ends_at_local_midnight_if_the_clocks_change(visit: Open) -> None:
    page = visit(timezone_id="Europe/Berlin")
    time_js = page.evaluate("performance.getEntriesByType('resource').find(({name}) => name.endsWith('/time.js')).name")
    end = "async ([url, begin, days]) => (await import(url)).bucketEnd(Date.parse(begin), days * 86400000)"
    for begin, days, expected in (
        ("2024-03-30T23:00Z", 1, "2024-03-31T22:00Z"),
        ("2024-10-26T22:00Z", 1, "2024-10-27T23:00Z"),
        ("2024-10-20T22:00Z", 7, "2024-10-27T23:00Z"),
        ("2024-06-01T22:00Z", 1, "2024-06-02T22:00Z"),
    ):
        assert page.evaluate(end, [time_js, begin, days]) == datetime.fromisoformat(expected).timestamp() * 1000


def test_the_times_of_an_axis_keep_to_the_local_clock(visit: Open) -> None:
    page = visit(timezone_id="Europe/Berlin")
    time_js = page.evaluate("performance.getEntriesByType('resource').find(({name}) => name.endsWith('/time.js')).name")
    ticks = "async ([url, from, to]) => (await import(url)).axisTicks(Date.parse(from), Date.parse(to), 10).times"
    for begin, end, days in (("2024-10-23", "2024-11-01", range(23, 32)), ("2024-03-27", "2024-04-05", range(27, 36))):
        midnights = [datetime.fromisoformat(begin) + timedelta(days=day - days[0]) for day in days]
        expected = [moment.replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp() * 1000 for moment in midnights]
        assert page.evaluate(ticks, [time_js, f"{begin}T00:00", f"{end}T00:00"])[: len(days)] == expected


def test_the_weeks_of_an_axis_begin_on_mondays(visit: Open) -> None:
    page = visit(timezone_id="Asia/Shanghai")
    time_js = page.evaluate("performance.getEntriesByType('resource').find(({name}) => name.endsWith('/time.js')).name")
    ticks = "async ([url, from, to]) => (await import(url)).axisTicks(Date.parse(from), Date.parse(to), 6).times"
    for end, days in (("2024-02-01", 7), ("2024-03-20", 14), ("2025-03-20", 91)):
        times = page.evaluate(ticks, [time_js, "2024-01-03T00:00Z", f"{end}T00:00Z"])
        moments = [datetime.fromtimestamp(time / 1000, ZoneInfo("Asia/Shanghai")) for time in times]
        assert {f"{moment:%A %H:%M}" for moment in moments} == {"Monday 00:00"}
        assert len(moments) >= 4
        assert (moments[1] - moments[0]).days == days


def test_the_labels_of_decades_do_not_overlap(visit: Open) -> None:
    page = visit()
    time_js = page.evaluate("performance.getEntriesByType('resource').find(({name}) => name.endsWith('/time.js')).name")
    ticks = (
        "async ([url, from, to]) => (await import(url)).axisTicks(Date.parse(from), Date.parse(to), 10).times.length"
    )
    for year, most in ((1970, 11), (1, 11), (9999, 11)):
        first, last = sorted((f"{year:04}-01-01T00:00Z", "2024-01-01T00:00Z"))
        assert 5 <= page.evaluate(ticks, [time_js, first, last]) <= most


EARLY = "from=2019-02-01T00:00:00.000Z&to=2019-02-03T00:00:00.000Z"
COUNTER = 1_700_000_000_123_456_789
"""More than a double can represent, like a time in nanoseconds."""


def test_large_integers_keep_their_digits_in_filters_and_measurements(visit: Open, site: Service) -> None:
    logs = [
        {
            "app_name": "counter",
            "timestamp": f"2019-02-01T1{number}:00:00",
            "tags": {"jig_id": "J-1", "serial": 2**53 + number},
            "fields": {"passed": number > 1, "count": COUNTER + number},
        }
        for number in range(1, 5)
    ]
    site.post("/v1/factory_logs", logs)
    of_one = [{"name": "tags__serial", "op": "==", "val": 2**53 + 1}]
    for state in (f"&q={quote(json.dumps(of_one))}", filters(["tags__serial", "==", 2**53 + 1])):
        page = visit(f"#/logs?{EARLY}{state}")
        expect(page.locator(".tally")).to_have_text("1 log")
    page.goto(f"{site.url}/#/yield?{EARLY}&by=tags__serial" + filters(["app_name", "==", "counter"]))
    page.get_by_role("link", name=str(2**53 + 3), exact=True).click()
    expect(page.locator(".tally")).to_have_text("1 log")
    page.goto(f"{site.url}/#/logs?{EARLY}&facets=tags__serial" + filters(["app_name", "==", "counter"]))
    page.get_by_role("button", name=f"Exclude tags__serial {2**53 + 3}").click()
    expect(page.locator(".tally")).to_have_text("3 logs")
    page.get_by_role("button", name="+ Filter").click()
    page.get_by_label("Field", exact=True).fill("tags__serial")
    page.get_by_label("Value", exact=True).fill(str(2**53 + 1))
    page.get_by_role("button", name="Add", exact=True).first.click()
    expect(page.locator(".tally")).to_have_text("1 log")
    measurement = f"&m=fields__count&lower={COUNTER + 2}" + filters(["app_name", "==", "counter"])
    page.goto(f"{site.url}/#/measurement?{EARLY}{measurement}")
    expect(page.locator(".tile", has_text="Minimum and maximum")).to_contain_text(f"{COUNTER + 1}, {COUNTER + 4}")
    assert (
        page.evaluate(
            "[...document.querySelectorAll('.tile dd')].filter((each) => each.scrollWidth > each.clientWidth).length"
        )
        == 0
    )
    expect(page.locator(".tile", has_text="Mean")).to_contain_text(re.compile("17000000001234567|17000000001234568"))
    page.get_by_role("link", name=f"1 log is below {COUNTER + 2}").click()
    expect(page.locator(".tally")).to_have_text("1 log")


def test_limits_at_three_deviations_are_as_exact_as_the_deviation(visit: Open, site: Service) -> None:
    numbers = [2_400_000_000.5, 2_400_000_001.5, 2_400_000_002.5]
    logs = [
        {"app_name": "radio", "timestamp": "2019-02-02T10:00:00", "fields": {"hertz": number}} for number in numbers
    ]
    site.post("/v1/factory_logs", logs)
    page = visit(f"#/measurement?{EARLY}&m=fields__hertz" + filters(["app_name", "==", "radio"]))
    expect(page.locator(".tile", has_text="Mean")).to_contain_text("2400000002")
    labels = page.locator("svg").first.locator("text.tick:not(.limit-name)").all_text_contents()
    values = [label for label in labels if label.startswith("24000")]
    assert len(values) == len(set(values)) > 3
    page.get_by_role("button", name="Use mean ± 3 standard deviations").click()
    expect(page.get_by_label("Lower limit")).to_have_value("2399999998.50")
    expect(page.get_by_label("Upper limit")).to_have_value("2400000004.50")
    expect(page.locator(".tile", has_text="Ppk")).to_contain_text("1.00")
    page.get_by_label("Lower limit").fill(".5")
    page.get_by_label("Upper limit").fill("")
    expect(page.get_by_text("No log is below 0.5.")).to_be_visible()


def test_the_pareto_chart_works_by_keyboard_and_leads_to_failed_logs(visit: Open) -> None:
    koala = "koala_test_jig_production"
    page = visit(f"#/failures?{TIME}" + filters(["app_name", "==", koala]))
    picture(page, "failures-1440-light")
    chart = page.get_by_role("group", name=re.compile("^Pareto chart"))
    chart.focus()
    page.keyboard.press("Home")
    expect(page.locator(".tip")).to_contain_text("output_usb")
    page.get_by_role("link", name="Logs that failed at output_usb").click()
    expect(page.locator(".tally strong")).to_have_text(str(failed("output_usb", koala)))
    page.go_back()
    shown(page)
    page.get_by_role("group", name=re.compile("^Pareto chart")).focus()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("m=fields__output_usb__value"))


def test_the_pareto_chart_names_its_bars_and_its_line(visit: Open) -> None:
    page = visit(f"#/failures?{TIME}")
    legend = page.locator(".legend li")
    expect(legend).to_have_text(["failed attempts", "cumulative share of failures"])


def test_the_text_of_a_chart_stays_within_a_narrow_window(visit: Open) -> None:
    page = visit(f"#/failures?{TIME}", viewport={"width": 390, "height": 844})
    page.get_by_role("group", name=re.compile("^Pareto chart")).focus()
    for key in ("Home", "End"):
        page.keyboard.press(key)
        box = page.locator(".tip").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390


@pytest.mark.parametrize("view", ["yield", "failures", "measurement"])
def test_a_view_without_results_offers_all_time(visit: Open, view: str) -> None:
    page = visit(f"#/{view}?from=2018-01-01T00:00:00.000Z&to=2018-01-02T00:00:00.000Z")
    page.get_by_role("button", name="All time").click()
    expect(page.locator(".choices" if view == "measurement" else ".tile").first).to_be_visible()
    page.goto(f"{page.url}&m=fields__nothing&passed=fields__nothing")
    expect(page.locator(".empty").first).to_be_visible()
    shown(page)
    expect(page.get_by_role("button", name="All time")).to_have_count(0)


def test_failures_without_a_measurement_lead_to_the_logs_in_which_none_failed(visit: Open) -> None:
    verdicts = [
        [value.get("pass") for value in log["fields"].values() if isinstance(value, dict)]
        for log in LOGS
        if log["fields"]["passed"] is False
    ]
    expected = sum(False not in passes for passes in verdicts)
    assert 0 < expected < len(verdicts)
    page = visit(f"#/failures?{TIME}")
    page.get_by_role("link", name="Logs that failed at no measurement named").click()
    expect(page.locator(".tally strong")).to_have_text(str(expected))


def test_the_logs_of_a_failure_keep_the_typed_q(visit: Open) -> None:
    koala = "koala_test_jig_production"
    failures = [
        log["tags"]["jig_id"]
        for log in LOGS
        if log["app_name"] == koala and log["fields"].get("output_usb", {}).get("pass") is False
    ]
    jig, expected = Counter(failures).most_common(1)[0]
    assert expected < len(failures)
    typed = quote(json.dumps({"name": "tags__jig_id", "op": "==", "val": jig}))
    page = visit(f"#/failures?{TIME}&q={typed}" + filters(["app_name", "==", koala]))
    page.get_by_role("link", name="Logs that failed at output_usb").click()
    expect(page.locator(".tally strong")).to_have_text(str(expected))


def test_the_yield_view_has_a_message_if_there_are_no_attempts(visit: Open) -> None:
    page = visit(f"#/yield?{TIME}&passed=fields__nothing")
    expect(page.get_by_text("No log in this time has a boolean at fields__nothing")).to_be_visible()
    expect(page.get_by_text("No log has the field fields__nothing.")).to_be_visible()
    page.get_by_label("Passed at").fill("fields__pased")
    expect(page.get_by_text("did you mean fields__passed?")).to_be_visible()
    page.get_by_label("Passed at").fill("fieldz")
    expect(page.locator(".panel .error").first).to_contain_text("fieldz")


def test_a_unit_shows_its_tests_and_repairs_and_leads_to_a_log(visit: Open) -> None:
    repaired = Counter(log["product_imei"] for log in LOGS if log["repair_id"])
    imei, _ = repaired.most_common(1)[0]
    page = visit("#/unit")
    page.get_by_label("Unit (IMEI, 15 digits)").fill(imei)
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("heading", name=f"Unit {imei}")).to_be_visible()
    shown(page)
    picture(page, "unit-1440-light")
    expect(page.locator(".tile").filter(has_text="Logs")).to_contain_text(
        number(lambda log: log["product_imei"] == imei)
    )
    table = page.get_by_role("region", name="Tests and repairs")
    expect(table).to_contain_text("arrived")
    table.get_by_role("link").first.click()
    expect(page.get_by_role("heading", name=re.compile(r"^Log \d+$"))).to_be_visible()
    expect(page.locator(".tally strong")).to_have_text(number(lambda log: log["product_imei"] == imei))


def test_no_passed_test_hides_a_failed_one_on_a_units_time_line(visit: Open) -> None:
    failed = Counter(log["product_imei"] for log in LOGS if log["repair_id"] and not log["fields"]["passed"])
    imei, count = failed.most_common(1)[0]
    page = visit(f"#/unit?imei={imei}")
    expect(page.locator("svg .event-failed")).to_have_count(count)
    marks = page.locator("svg [class^=event-]")
    kinds = [mark.get_attribute("class") for mark in marks.all()]
    assert kinds == sorted(kinds, key=lambda kind: kind == "event-failed")


def test_the_last_result_of_a_unit_is_that_of_its_last_attempt(visit: Open, site: Service) -> None:
    imei = "990000862471854"
    logs = [
        ("functional", 1, {"passed": True}),
        ("burn-in", 2, {"passed": False}),
        ("functional", 3, {"note": "packed"}),
    ]
    site.post("/v1/factory_logs", [
        {"app_name": app, "product_imei": imei, "timestamp": f"2023-05-01T0{hour}:00:00", "fields": fields}
        for app, hour, fields in logs
    ])  # fmt: skip
    page = visit(f"#/unit?imei={imei}")
    expect(page.locator(".tile").filter(has_text="Last result")).to_contain_text("✗ failedburn-in")


def test_an_unknown_unit_has_a_message(visit: Open) -> None:
    page = visit("#/unit?imei=999999999999999")
    expect(page.locator(".panel .error")).to_contain_text("There are no logs and no repairs of a unit 999999999999999")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
