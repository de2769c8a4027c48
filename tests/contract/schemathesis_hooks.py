"""What Schemathesis is taught: to write NDJSON, and that it cannot compress. Loaded by SCHEMATHESIS_HOOKS."""

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(_: schemathesis.SerializationContext, value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


@schemathesis.hook
def before_call(_: schemathesis.HookContext, case: schemathesis.Case, kwargs: Any) -> None:
    """A header that says gzip over a body that is not would be a 400, and rightly so."""
    if case.headers is not None:
        case.headers.pop("Content-Encoding", None)
