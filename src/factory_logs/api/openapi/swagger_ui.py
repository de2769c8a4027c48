"""`/docs`: Swagger UI. The service itself serves its assets, because a factory may have no internet access.

Only the assets of the package fastapi-offline are used, because its application class would also replace other routes.
"""

import base64
import hashlib
import importlib.util
import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse, JSONResponse
from starlette.staticfiles import StaticFiles

ASSETS = "/docs/assets"
DOCUMENT = "/docs/openapi.json"
SWAGGER_UI = {
    "persistAuthorization": True,
    "displayRequestDuration": True,
    "tryItOutEnabled": True,
    "defaultModelsExpandDepth": 0,
}


def install(app: FastAPI) -> None:
    """Add `/docs` to the app."""
    app.mount(ASSETS, StaticFiles(directory=_assets()), name="docs-assets")

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "").rstrip("/")
        page = get_swagger_ui_html(
            openapi_url=f"{root}{DOCUMENT}",
            title=app.title,
            swagger_js_url=f"{root}{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{root}{ASSETS}/swagger-ui.css",
            swagger_favicon_url="data:,",
            swagger_ui_parameters=SWAGGER_UI,
        )
        page.headers["Content-Security-Policy"] = _policy(bytes(page.body))
        page.headers["Referrer-Policy"] = "no-referrer"
        return page

    @app.get(DOCUMENT, include_in_schema=False)
    async def document(request: Request) -> JSONResponse:
        shown = for_swagger_ui(app.openapi())
        root = request.scope.get("root_path", "").rstrip("/")
        return JSONResponse(shown | {"servers": [{"url": root}]} if root else shown)


def for_swagger_ui(document: dict[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI document for Swagger UI, with the examples of JSON parameters such as `q` in the parameter.

    Swagger UI shows only the examples of the parameter itself. For a parameter with `content`, OpenAPI 3.1 requires
    them inside `content`, so `/openapi.json` has them only there.
    """
    shown = deepcopy(document)
    for operations in shown["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                examples = parameter.get("content", {}).get("application/json", {}).get("examples", {})
                if examples:
                    parameter["examples"] = {
                        key: each | {"value": json.dumps(each["value"], ensure_ascii=False)}
                        for key, each in examples.items()
                    }
    return shown


def _policy(page: bytes) -> str:
    """Return the Content-Security-Policy. It allows only files of this service, the page's own script, and inline
    styles, which Swagger UI sets."""
    (script,) = re.findall(rb"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    return (
        f"default-src 'self'; script-src 'self' 'sha256-{digest}'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _assets() -> Path:
    # Find the package without importing it: only its files are needed.
    spec = importlib.util.find_spec("fastapi_offline")
    if spec is None or spec.origin is None:
        raise RuntimeError("fastapi-offline is not installed: pip install 'factory-logs[server]'")
    return Path(spec.origin).parent / "static"
