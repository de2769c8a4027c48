"""The document describes every call, and Schemathesis finds no answer that it does not describe (SPEC 6)."""

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

from factory_logs.app import create_app
from factory_logs.query import FACTORY_LOGS, REPAIRS, Limits, parse_query
from factory_logs.query.operators import ALIASES
from factory_logs.settings import Settings
from tests.contract.conftest import Service

CONFIG = Path(__file__).with_name("schemathesis.toml")
CALLS = {
    "POST /v1/factory_logs",
    "GET /v1/factory_logs",
    "GET /v1/factory_logs/{factory_log_id}",
    "GET /v1/factory_logs/stats",
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
    """Examples, edges, random cases, and calls one after another; each phase with all checks."""
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


def test_a_repair_that_was_stored_leads_to_its_reading(document: dict[str, Any]) -> None:
    """By a link that names the call and where in the answer its parameter is. Logs have `Location` alone."""
    described = dict(operations(document))
    (link,) = described["POST /v1/repairs"]["responses"]["201"]["links"].values()
    reading = described["GET /v1/repairs/{repair_id}"]
    assert link["operationId"] == reading["operationId"]
    assert link["parameters"] == {reading["parameters"][0]["name"]: "$response.body#/repair_id"}


def test_every_call_shows_what_to_send_and_every_answer_that_it_may_give(document: dict[str, Any]) -> None:
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


def test_the_token_scheme_stands_behind_authorize(document: dict[str, Any]) -> None:
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
        assert all(f"`{alias}`" in parameter["description"] for alias in ALIASES)
        content = parameter["content"]["application/json"]
        validator = jsonschema_rs.validator_for(content["schema"] | components, validate_formats=True)
        resource = REPAIRS if "repairs" in name else FACTORY_LOGS
        for example in content["examples"].values():
            validator.validate(example["value"])
            parse_query(json.dumps(example["value"]), resource, Limits())


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
def test_the_grammar_of_q_refuses_what_the_service_refuses(document: dict[str, Any], wrong: object) -> None:
    parameter = q_parameters(document)["GET /v1/factory_logs"]
    schema = parameter["content"]["application/json"]["schema"] | {"components": document["components"]}
    assert not jsonschema_rs.validator_for(schema, validate_formats=True).is_valid(wrong)
    with pytest.raises(Exception, match="Unable to construct query"):
        parse_query(json.dumps(wrong), FACTORY_LOGS, Limits())


async def test_docs_need_nothing_from_outside(service: Service) -> None:
    async with httpx.AsyncClient(base_url=service.url) as client:
        page = (await client.get("/docs")).text
        assert "http" not in page.replace("http://www.w3.org", "")
        for asset in ("swagger-ui-bundle.js", "swagger-ui.css"):
            assert asset in page
            answer = await client.get(f"/docs/assets/{asset}")
            assert (answer.status_code, len(answer.content) > 100_000) == (200, True)
        missing = await client.get("/docs/assets/nothing.js")
        assert (missing.status_code, missing.headers["content-type"]) == (404, "application/json")


def test_docs_can_be_left_out() -> None:
    url = SecretStr("postgresql://nobody@localhost/nothing")
    paths = {getattr(route, "path", "") for route in create_app(Settings(database_url=url, docs_enabled=False)).routes}
    assert not paths & {"/docs", "/openapi.json", "/docs/assets"}
