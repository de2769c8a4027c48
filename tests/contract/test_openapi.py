"""The document describes every call, and Schemathesis finds no response that it does not describe
(docs/reference/http-api.md#openapi)."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
from pydantic import SecretStr

from factory_logs.api.http.pagination import write_cursor
from factory_logs.api.openapi.swagger_ui import for_swagger_ui
from factory_logs.app import create_app
from factory_logs.querier.pages import CursorPosition
from factory_logs.query import FACTORY_LOGS, REPAIRS, Query, QueryLimits, parse_query
from factory_logs.query.operators import ALIASES
from factory_logs.settings import Settings
from tests.contract.conftest import Service

CONFIG = Path(__file__).with_name("schemathesis.toml")
CALLS = {
    "POST /v1/factory_logs",
    "GET /v1/factory_logs",
    "GET /v1/factory_logs/{factory_log_id}",
    "GET /v1/factory_logs/stats",
    "GET /v1/factory_logs/yield",
    "GET /v1/factory_logs/failures",
    "GET /v1/factory_logs/distribution",
    "GET /v1/factory_logs/facets",
    "GET /v1/factory_logs/catalog",
    "GET /v1/units/{product_imei}",
    "POST /v1/repairs",
    "GET /v1/repairs",
    "GET /v1/repairs/{repair_id}",
    "POST /v1/auth/login",
    "GET /v1/auth/validate_user",
}
INFLUX_WRITERS = {"POST /write", "POST /api/v2/write", "GET /query", "POST /query"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    app = create_app(Settings(database_url=SecretStr("postgresql://nobody@localhost/nothing")))
    return app.openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_schemathesis_finds_nothing(service: Service, tmp_path: Path) -> None:
    """Examples, edge cases, random cases and sequences of calls; each phase runs all checks."""
    program = [sys.executable, "-m", "schemathesis.cli", "--config-file", CONFIG, "run", f"{service.url}/openapi.json"]
    result = subprocess.run(
        program,
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env=os.environ | {
            "SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(CONFIG.parent), "TOKEN": service.token,
        },
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "No issues found" in result.stdout, result.stdout
    followed = re.search(r"API Links: +(\d+) covered", result.stdout)
    assert followed, result.stdout
    assert int(followed[1]) > 0, result.stdout
    assert "Failed to extract" not in result.stdout, result.stdout


def test_every_call_is_described(document: dict[str, Any]) -> None:
    described = dict(operations(document))
    assert described.keys() >= CALLS
    for name, operation in described.items():
        assert operation["description"], name
        assert operation["tags"], name
        assert "422" not in operation["responses"], name


def test_the_response_to_a_new_repair_links_to_its_get(document: dict[str, Any]) -> None:
    """A link names the call, and the JSON pointer of its parameter in the response. Logs have only `Location`."""
    described = dict(operations(document))
    (link,) = described["POST /v1/repairs"]["responses"]["201"]["links"].values()
    reading = described["GET /v1/repairs/{repair_id}"]
    assert link["operationId"] == reading["operationId"]
    assert link["parameters"] == {reading["parameters"][0]["name"]: "$response.body#/repair_id"}


def test_every_call_documents_its_request_and_responses(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        if name not in CALLS:
            continue
        for media_type in operation.get("requestBody", {}).get("content", {}).values():
            properties = media_type["schema"].get("properties", {}).values()
            own = media_type["schema"].get("examples") or media_type.get("examples") or media_type.get("example")
            assert own or all(p.get("examples") for p in properties), name
        for parameter in operation.get("parameters", ()):
            content = parameter.get("content", {}).get("application/json", {})
            schema = parameter.get("schema", {})
            shown = parameter.get("examples") or content.get("examples") or schema.get("examples")
            assert shown or schema.keys() & {"enum", "pattern"}, (name, parameter["name"])
        assert {"401", "500", "503"} <= operation["responses"].keys(), name
        for status, response in operation["responses"].items():
            if status == "304":
                assert "content" not in response, name
                continue
            media_type = response["content"]["application/json"]
            if status >= "4":
                assert media_type["schema"]["$ref"].endswith("/ErrorBody"), name
                assert media_type["example"].keys() >= {"message", "request_id"}, (name, status)
        assert ("429" in operation["responses"]) == (name == "POST /v1/auth/login")
        assert ("403" in operation["responses"]) == (name != "POST /v1/auth/login")


def test_writes_with_a_key_document_the_headers_about_it(document: dict[str, Any]) -> None:
    described = dict(operations(document))
    with_headers = {
        name: {
            (status, header)
            for status, response in operation["responses"].items()
            for header in response.get("headers", ())
            if header.startswith("Idempotency-")
        }
        for name, operation in described.items()
        if name.partition(" ")[2].startswith("/v1/")
    }
    of_both = {("201", "Idempotency-Replayed"), ("400", "Idempotency-Key-Used")}
    assert {name: found for name, found in with_headers.items() if found} == {
        "POST /v1/factory_logs": of_both | {("413", "Idempotency-Key-Used")},
        "POST /v1/repairs": of_both,
    }


def test_authorize_has_the_token_scheme(document: dict[str, Any]) -> None:
    scheme = document["components"]["securitySchemes"]["Token"]
    assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "header", "Authorization")
    assert "Token token=" in scheme["description"]
    for name, operation in operations(document):
        open_to_all = name == "POST /v1/auth/login" or "/v1/" not in name
        own = {"Token": []}
        expected = [own, {"Basic": []}] if name in INFLUX_WRITERS else [] if open_to_all else [own]
        assert operation.get("security", []) == expected, name


def q_parameters(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name: parameter
        for name, operation in operations(document)
        for parameter in operation.get("parameters", ())
        if parameter["name"] == "q" and "/v1/" in name
    }


def test_the_grammar_of_q_names_every_operator_and_its_examples_are_queries(document: dict[str, Any]) -> None:
    components = {"components": document["components"]}
    for name, parameter in q_parameters(document).items():
        assert "examples" not in parameter  # OpenAPI 3.1 does not allow them next to `content`
        assert all(f"`{alias}`" in parameter["description"] for alias in ALIASES)
        content = parameter["content"]["application/json"]
        validator = jsonschema_rs.validator_for(content["schema"] | components, validate_formats=True)
        resource = REPAIRS if "repairs" in name else FACTORY_LOGS
        for example in content["examples"].values():
            validator.validate(example["value"])
            parse_query(json.dumps(example["value"]), resource, QueryLimits())


def test_q_of_a_call_that_takes_only_filters_documents_nothing_else(document: dict[str, Any]) -> None:
    for name, parameter in q_parameters(document).items():
        takes_all = name in ("GET /v1/factory_logs", "GET /v1/repairs")
        for member in ("order_by", "group_by", "limit", "offset", "single"):
            assert bool(re.search(rf"(^- |, )`{member}`", parameter["description"], re.MULTILINE)) == takes_all, (
                name,
                member,
            )
        content = parameter["content"]["application/json"]
        schema = document["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
        assert (schema["properties"].keys() == {"filters"}) != takes_all, name
        assert any(example["value"].keys() - {"filters"} for example in content["examples"].values()) == takes_all


def test_q_of_influxdbs_call_is_a_statement(document: dict[str, Any]) -> None:
    (q,) = (each for each in document["paths"]["/query"]["get"]["parameters"] if each["name"] == "q")
    assert q["schema"]["type"] == "string"


def test_the_schema_of_cursor_allows_written_and_empty_cursors(document: dict[str, Any]) -> None:
    for path in ("/v1/factory_logs", "/v1/repairs"):
        (cursor,) = (each for each in document["paths"][path]["get"]["parameters"] if each["name"] == "cursor")
        assert cursor["allowEmptyValue"]
        pattern = cursor["schema"]["pattern"]
        assert cursor["schema"].keys() == {"type", "pattern", "examples"}
        written = write_cursor(CursorPosition(1, 2, 3, 4, 5), Query())
        assert re.fullmatch(pattern, written)
        assert re.fullmatch(pattern, "")
        assert not re.fullmatch(pattern, written[1:])


def test_swagger_ui_gets_every_example_of_q_as_text_to_select(document: dict[str, Any]) -> None:
    shown = for_swagger_ui(document)
    for name, parameter in q_parameters(shown).items():
        inside = parameter["content"]["application/json"]["examples"]
        assert parameter["examples"].keys() == inside.keys(), name
        assert {key: json.loads(each["value"]) for key, each in parameter["examples"].items()} == {
            key: each["value"] for key, each in inside.items()
        }
    assert all("examples" not in parameter for parameter in q_parameters(document).values())


@pytest.mark.parametrize(
    "wrong",
    [
        {"filters": [{"name": "colour", "op": "==", "val": 1}]},
        {"filters": [{"name": "app_name", "op": "~", "val": "x"}]},
        {"filters": [{"name": "app_name", "op": "==", "val": 1}]},
        {"filters": [{"name": "app_name", "op": "=="}]},
        {"filters": [{"name": "timestamp", "op": "<", "val": "yesterday"}]},
        {"filters": [{"name": "repair", "op": "has", "val": {"name": "app_name", "op": "is_null"}}]},
        {"filters": {}},
        {"order_by": [{"field": "app_name", "direction": "up"}]},
        {"limit": -1},
    ],
)
def test_the_grammar_of_q_rejects_the_same_queries_as_the_service(document: dict[str, Any], wrong: object) -> None:
    parameter = q_parameters(document)["GET /v1/factory_logs"]
    schema = parameter["content"]["application/json"]["schema"] | {"components": document["components"]}
    assert not jsonschema_rs.validator_for(schema, validate_formats=True).is_valid(wrong)
    with pytest.raises(Exception, match="Unable to construct query"):
        parse_query(json.dumps(wrong), FACTORY_LOGS, QueryLimits())


async def test_docs_load_nothing_from_other_servers(service: Service) -> None:
    async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
        page = (await client.get("/docs")).text
        described = re.search(r"url: '([^']+)'", page)
        assert described
        assert (await client.get(described[1])).json()["openapi"].startswith("3.1")
        assert "http" not in page.replace("http://www.w3.org", "")
        for asset in ("swagger-ui-bundle.js", "swagger-ui.css"):
            assert asset in page
            asset_response = await client.get(f"/docs/assets/{asset}")
            assert (asset_response.status_code, len(asset_response.content) > 100_000) == (200, True)
        missing = await client.get("/docs/assets/nothing.js")
        assert (missing.status_code, missing.headers["content-type"]) == (404, "application/json")


def test_docs_can_be_switched_off() -> None:
    url = SecretStr("postgresql://nobody@localhost/nothing")
    paths = {getattr(route, "path", "") for route in create_app(Settings(database_url=url, docs_enabled=False)).routes}
    assert not paths & {"/docs", "/openapi.json", "/docs/assets"}
