"""`GET /` in a browser: the page, and its modules and styles under `/web` (docs/explanation/page.md).

The files are read and compressed once, when the app starts. Their path contains a digest of all files, so a browser
caches them permanently and never mixes the files of two versions.
"""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Annotated

from fastapi import FastAPI, Header, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from factory_logs.api.http.caching import not_modified, strong_etag
from factory_logs.api.http.content_coding import preferred

WEB = "/web"
DIGEST_BYTES = 9
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""The strictest policy: the page has no inline script or style, and may not turn text into markup."""
_UNCHANGING = "public, max-age=31536000, immutable"
_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class WebFiles:
    """The page's files by name, except the index. `digest` changes if any of them changes."""

    index: str
    assets: dict[str, bytes]
    compressed: dict[str, bytes]
    digest: str

    def page(self, root: str) -> bytes:
        """Return the index with paths under `root`. It lists all modules, so that a browser loads them at once."""
        folder = f"{root}{WEB}/{self.digest}"
        modules = sorted(name for name in self.assets if name.endswith(".js") and name != "main.js")
        preloads = "\n".join(f'    <link rel="modulepreload" href="{folder}/{name}">' for name in modules)
        return self.index.replace("    <!-- modules -->", preloads).replace('="web/', f'="{folder}/').encode()


@cache
def web_files() -> WebFiles:
    """Read and compress the files of `factory_logs/web`, once per process."""
    folder = files("factory_logs") / "web"
    found = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    assets = {name: content for name, content in found.items() if f".{name.rpartition('.')[2]}" in _TYPES}
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for name, content in sorted(found.items()):
        digest.update(f"{name} {len(content)}\n".encode() + content)
    compressed = {name: gzip.compress(content, mtime=0) for name, content in assets.items()}
    return WebFiles(found["index.html"].decode(), assets, compressed, digest.hexdigest())


def install(app: FastAPI) -> None:
    """Add the page to the app."""
    web = web_files()

    @app.get("/", include_in_schema=False)
    async def page(
        request: Request,
        accept: Annotated[str, Header()] = "",
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        # Only a request for HTML gets the page, because a script with a wrong base URL would take a 200 for success.
        if "text/html" not in accept.lower():
            raise HTTPException(404)
        body = web.page(request.scope.get("root_path", "").rstrip("/"))
        headers = HEADERS | {"ETag": strong_etag(body), "Cache-Control": "no-cache", "Vary": "Accept"}
        return not_modified(if_none_match, headers) or Response(body, media_type="text/html", headers=headers)

    @app.get(WEB + "/{digest}/{name}", include_in_schema=False)
    async def asset(
        digest: str,
        name: str,
        accept_encoding: Annotated[str, Header()] = "",
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        if digest != web.digest or name not in web.assets:
            raise HTTPException(404)
        coding = preferred(accept_encoding, ("gzip", "identity")) or "identity"
        headers = HEADERS | {"Cache-Control": _UNCHANGING, "Vary": "Accept-Encoding"}
        headers["ETag"] = f'"{web.digest}-{coding}"'
        if coding == "gzip":
            headers["Content-Encoding"] = coding
        content = web.compressed[name] if coding == "gzip" else web.assets[name]
        media_type = _TYPES[f".{name.rpartition('.')[2]}"]
        return not_modified(if_none_match, headers) or Response(content, headers=headers, media_type=media_type)
