"""Hooks for Schemathesis: it writes NDJSON and does not announce compression. Loaded by SCHEMATHESIS_HOOKS."""

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(_: schemathesis.SerializationContext, value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


@schemathesis.hook
def before_call(_: schemathesis.HookContext, case: schemathesis.Case, kwargs: Any) -> None:
    """A gzip header with a body that is not compressed would correctly be a 400."""
    if case.headers is not None:
        case.headers.pop("Content-Encoding", None)
