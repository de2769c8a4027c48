"""User actions in the view of logs."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo

import httpx
from playwright.sync_api import Page, Route, expect

from tests.web.conftest import LOGS, PASSWORD, TIME, USER, Log, Open, Service, filters, number, picture, shown


def is_of(*jigs: str) -> Callable[[Log], bool]:
    return lambda log: log["tags"].get("jig_id") in jigs


def is_weak(log: Log) -> bool:
    repair = log["app_name"] == "tiger_test_jig_repair"
    return repair and log["fields"].get("battery", {}).get("voltage", 9) < 3.2


def in_shanghai(log: Log) -> str:
    moment = datetime.fromisoformat(log["timestamp"]).astimezone(ZoneInfo("Asia/Shanghai"))
    return f"{moment:%Y-%m-%d %H:%M:%S}"


ALL = number(bool)
BY_TIME = sorted(LOGS, key=lambda log: log["timestamp"])


def rows(page: Page) -> list[str]:
    return page.locator("table.logs tbody tr:not(.spacer)").all_inner_texts()


def test_a_user_logs_in_and_sees_the_newest_logs_and_logs_out(visit: Open, site: Service) -> None:
    page = visit("", login=False)
    page.get_by_label("User").fill(USER)
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_have_text("The username or the password is wrong.")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator(".tally strong")).to_have_text(ALL)
    shown(page)
    assert in_shanghai(BY_TIME[-1]) in rows(page)[0]
    token = page.evaluate("sessionStorage.getItem('factory-logs-token')")
    assert re.fullmatch("[A-Za-z0-9]{64}", token)
    assert token not in page.url
    assert token not in page.content()
    page.get_by_role("button", name=f"Log out {USER}").click()
    expect(page.get_by_role("alert")).to_have_text("You are logged out.")
    assert page.evaluate("sessionStorage.length") == 0
    headers = {"Authorization": f"Token token={token}"}
    assert httpx.get(f"{site.url}/v1/factory_logs", headers=headers, timeout=60).status_code == 401


def test_a_shared_link_opens_after_the_login_with_a_token_that_the_logout_does_not_end(
    visit: Open, site: Service
) -> None:
    link = f"#/logs?{TIME}&log=1" + filters(["tags__jig_id", "==", "J-07"])
    page = visit(link, login=False)
    page.get_by_role("button", name="Use a token instead").click()
    page.get_by_label("Token").fill("unknown")
    page.get_by_role("button", name="Use this token").click()
    expect(page.get_by_role("alert")).to_contain_text("unknown, revoked or expired")
    page.get_by_label("Token").fill(f"Token token={site.token}")
    page.get_by_role("button", name="Use this token").click()
    expect(page.locator(".tally strong")).to_have_text(number(is_of("J-07")))
    expect(page.get_by_role("heading", name="Log 1", exact=True)).to_be_visible()
    assert page.url.endswith(link)
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("User")).to_be_visible()
    headers = {"Authorization": f"Token token={site.token}"}
    assert httpx.get(f"{site.url}/v1/factory_logs", headers=headers, timeout=60).status_code == 200


def test_facets_include_and_exclude_and_the_history_goes_back_and_forward(visit: Open) -> None:
    page = visit()
    total = page.locator(".tally strong")
    expect(total).to_have_text(ALL)
    picture(page, "logs-1440-light")
    facets = page.get_by_role("region", name="Facets")
    facets.get_by_role("button", name=re.compile("^J-33")).click()
    expect(total).to_have_text(number(is_of("J-33")))
    facets.get_by_role("button", name=re.compile("^J-32")).click()
    expect(total).to_have_text(number(is_of("J-33", "J-32")))  # either of them
    facets.get_by_role("button", name="Exclude fields__passed ✗ failed").click()
    expect(total).to_have_text(number(lambda log: is_of("J-33", "J-32")(log) and log["fields"]["passed"]))
    shown(page)
    assert not any("failed" in row for row in rows(page))
    page.go_back()
    expect(total).to_have_text(number(is_of("J-33", "J-32")))
    page.go_back()
    expect(total).to_have_text(number(is_of("J-33")))
    page.go_forward()
    expect(total).to_have_text(number(is_of("J-33", "J-32")))
    page.reload()
    expect(total).to_have_text(number(is_of("J-33", "J-32")))
    page.get_by_role("button", name="Remove the filter tags__jig_id is J-32").click()
    expect(total).to_have_text(number(is_of("J-33")))


def test_a_typed_query_is_added_to_the_filters_and_an_error_is_shown(visit: Open) -> None:
    page = visit(f"#/logs?{TIME}" + filters(["app_name", "==", "tiger_test_jig_repair"]))
    total = page.locator(".tally strong")
    expect(total).to_have_text(number(lambda log: log["app_name"] == "tiger_test_jig_repair"))
    typed = page.get_by_role("searchbox")
    typed.fill('{"name": "fields__battery__voltage", "op": "<", "val": 3.2}')
    expect(total).to_have_text(number(is_weak))
    typed.fill('{"name": "fields__battery__voltage",')
    expect(page.get_by_text("This is neither JSON nor the 15 digits of a unit")).to_be_visible()
    typed.fill('{"name": "fieldz", "op": "==", "val": 1}')
    expect(page.get_by_text("filters[0].name: no field 'fieldz'").first).to_be_visible()
    typed.fill('{"not": {"name": "fields__batery__voltage", "op": "is_null"}}')
    expect(page.get_by_text("did you mean fields__battery__voltage?")).to_be_visible()
    typed.fill("352099001770037")
    expect(page.get_by_text("No logs in this time range match these filters")).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    expect(total).to_have_text(ALL)


def test_an_empty_range_without_filters_offers_no_filter_to_clear(visit: Open) -> None:
    page = visit("#/logs?from=2018-01-01T00:00:00.000Z&to=2018-01-02T00:00:00.000Z")
    expect(page.get_by_text("There are no logs in this time range.")).to_be_visible()
    expect(page.get_by_role("button", name="Clear filters")).to_have_count(0)
    page.get_by_role("button", name="All time").click()
    expect(page.locator(".tally strong")).not_to_have_text("0")


def test_an_imei_typed_as_the_value_of_a_filter_is_text(visit: Open) -> None:
    imei = LOGS[0]["product_imei"]
    page = visit()
    page.get_by_role("button", name="+ Filter").click()
    page.get_by_label("Field", exact=True).fill("product_imei")
    page.get_by_label("Value", exact=True).fill(imei)
    page.get_by_role("button", name="Add", exact=True).first.click()
    expect(page.locator(".tally strong")).to_have_text(number(lambda log: log["product_imei"] == imei))


def test_dragging_over_the_histogram_zooms_in(visit: Open) -> None:
    page = visit()
    expect(page.locator(".tally strong")).to_have_text(ALL)
    box = page.locator(".chart svg").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.99, box["y"] + 50, steps=5)
    page.mouse.up()
    expect(page).to_have_url(re.compile("from=2024-01-3"))
    expect(page.locator(".tally strong")).not_to_have_text(ALL)
    shown(page)
    assert all(row.startswith("2024-01-31") for row in rows(page))
    assert rows(page)


def test_the_table_sorts_and_thousands_of_rows_scroll(visit: Open) -> None:
    page = visit()
    expect(page.locator(".tally strong")).to_have_text(ALL)
    page.get_by_role("columnheader", name="time").get_by_role("button").click()
    expect(page.locator("th[aria-sort=ascending]")).to_have_count(1)
    shown(page)
    assert in_shanghai(BY_TIME[0]) in rows(page)[0]
    table = page.locator(".scroll")
    while "These are all" not in page.locator(".foot").inner_text():
        table.evaluate("element => { element.scrollTop = element.scrollHeight }")
    table.evaluate("element => { element.scrollTop = element.scrollHeight }")
    expect(page.locator("table.logs")).to_have_attribute("aria-rowcount", "3001")
    expect(page.locator("tr[aria-rowindex='3001']")).to_contain_text(in_shanghai(BY_TIME[-1]))
    assert page.locator("table.logs tbody tr").count() < 100  # the document contains only the visible rows


def test_by_keyboard_alone_a_log_is_opened_filtered_by_and_closed(visit: Open) -> None:
    unit = BY_TIME[-2]["product_imei"]
    page = visit()
    expect(page.locator(".tally strong")).to_have_text(ALL)
    page.locator("table.logs tbody a").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    detail = page.locator(".detail")
    expect(detail.get_by_role("heading", name=re.compile(r"^Log \d+$"))).to_be_visible()
    expect(detail).to_contain_text(unit)
    detail.get_by_role("button", name=f"Only product_imei {unit}").press("Enter")
    expect(page.locator(".chip")).to_contain_text(unit)
    shown(page)
    page.keyboard.press("Escape")
    expect(detail).to_be_hidden()
    page.locator("body").press("u")
    expect(page.get_by_role("button", name="UTC, change to local time")).to_be_visible()
    expect(page.locator("table.logs")).to_contain_text(BY_TIME[-2]["timestamp"].replace("T", " ")[:19])


def test_chosen_columns_are_in_the_url(visit: Open) -> None:
    page = visit()
    page.get_by_text("Columns", exact=True).first.click()
    page.get_by_role("checkbox", name="hostname").check()
    expect(page.get_by_role("columnheader", name="hostname")).to_be_visible()
    page.reload()
    expect(page.get_by_role("columnheader", name="hostname")).to_be_visible()
    expect(page.locator("table.logs")).to_contain_text("KE-REP0")


def test_live_mode_counts_every_log_of_a_burst(visit: Open, site: Service) -> None:
    page = visit("#/logs?range=all&live=1" + filters(["app_name", "==", "burst"]))
    expect(page.locator(".tally")).to_contain_text("Live: 0 new")
    logs = [
        {"app_name": "burst", "timestamp": "2020-01-01", "fields": {"passed": n % 4 != 0, "n": n}} for n in range(3000)
    ]
    for start in range(0, 3000, 1000):
        site.post("/v1/factory_logs", logs[start : start + 1000])
    expect(page.locator(".live-total")).to_have_text("3,000")
    expect(page.locator(".tally")).to_contain_text("2,250 passed, 750 failed")
    expect(page.locator("table.logs")).to_have_attribute("aria-rowcount", "201")
    page.get_by_role("button", name="Stop live").click()
    expect(page.locator(".tally strong")).to_have_text("3,000")


def test_live_mode_continues_with_lower_ids_after_a_restore_from_a_backup(visit: Open) -> None:
    def event(log_id: int) -> str:
        return f"id: {log_id}\ndata: {json.dumps({**LOGS[0], 'factory_log_id': log_id})}\n\n"

    streams = [f": start\nid: 99\n\n{event(100)}", f": start\nid: 5\n\n{event(6)}", f": start\nid: 6\n\n{event(6)}"]
    answered: list[str] = []

    def answer(route: Route) -> None:
        answered.append(streams[min(len(answered), len(streams) - 1)])
        route.fulfill(status=200, content_type="text/event-stream", body=answered[-1])

    page = visit("#/logs?range=all")
    page.route("**/v1/factory_logs/tail*", answer)
    page.get_by_role("button", name="Live").click()
    expect(page.locator(".live-total")).to_have_text("2", timeout=60_000)
    for _ in range(2):
        page.wait_for_event("response", lambda response: "/tail" in response.url, timeout=60_000)
    expect(page.locator(".live-total")).to_have_text("2")


PICKER = """
window.showSaveFilePicker = async (options) => {
  const folder = await navigator.storage.getDirectory();
  return folder.getFileHandle(options.suggestedName, { create: true });
};
undefined  // the browser would call a function
"""
SAVED = """
async (name) => {
  const folder = await navigator.storage.getDirectory();
  return (await (await folder.getFileHandle(name)).getFile()).text();
}
"""


def test_a_browser_with_a_file_picker_writes_a_download_into_the_file_as_it_arrives(visit: Open) -> None:
    """The dialog cannot be used without a screen: the file is one of the browser's own file system."""
    page = visit("#/logs?" + TIME + filters(["tags__jig_id", "==", "J-07"]))
    page.evaluate(PICKER)
    page.get_by_text("API calls and downloads").click()
    page.get_by_role("button", name="Logs as NDJSON").click()
    expect(page.locator(".file").filter(has_text="Logs as NDJSON")).to_contain_text("complete")
    saved = page.evaluate(SAVED, "logs.ndjson")
    assert [json.loads(line)["tags"]["jig_id"] for line in saved.splitlines()] == ["J-07"] * sum(
        log["tags"]["jig_id"] == "J-07" for log in LOGS
    )


def test_downloads_and_curl_contain_the_shown_logs_and_no_token(visit: Open, site: Service) -> None:
    page = visit(f"#/logs?{TIME}" + filters(["tags__jig_id", "==", "J-07"], ["fields__passed", "==", False]))
    count = int(number(lambda log: is_of("J-07")(log) and not log["fields"]["passed"]))
    # A browser without a file picker, such as Firefox, downloads the file itself.
    page.evaluate("delete window.showSaveFilePicker")
    page.get_by_text("API calls and downloads").click()
    for kind, lines in (("CSV", count + 1), ("NDJSON", count)):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Logs as {kind}").click()
        text = download.value.path().read_text()
        assert len(text.splitlines()) == lines
        assert "J-07" in text
    calls = page.locator(".call pre").all_inner_texts()
    assert len(calls) >= 3
    for call in calls:
        assert 'Authorization: Token token=$TOKEN"' in call
        assert site.token not in call
        ran = subprocess.run(
            ["bash", "-c", call], env=os.environ | {"TOKEN": site.token}, capture_output=True, check=True
        )
        assert json.loads(ran.stdout).keys() & {"objects", "buckets", "facets"}, ran.stdout
