"""The installed uvicorn has the classes that this service subclasses."""

import hashlib
import inspect
from importlib.metadata import requires, version

import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.supervisors.multiprocess import Multiprocess, Process

KNOWN = {
    HttpToolsProtocol: "18fdf324b11bf160e38739eed01a48516b460be9e88f1e20e4546e7363fd9232",
    RequestResponseCycle: "e67d470d435dcc1ce6de9773841524a4439a06afd3a7243e458dc7f7c952b310",
    FlowControl: "126debcdaa894c83ed9491b41cb3b99c97469f00520f2483d2a5d1f53de91fa4",
    Multiprocess: "ea4650ac0ee7c09c8eb9aaf5ec01f82978a742b07f161ede41fcdbec7a71c7d2",
    Process: "c3105a4518e3195af6aa0bcc34105da512ff573b027fe492cb2b07722bb7e815",
}
"""The SHA-256 of each class's source."""


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.__name__)
def test_a_class_that_is_subclassed_has_not_changed(known: type) -> None:
    digest = hashlib.sha256(inspect.getsource(known).encode()).hexdigest()
    assert digest == KNOWN[known], (
        f"uvicorn {version('uvicorn')} has another {known.__name__}. Read what changed in it, see that "
        "api/asgi/uvicorn_protocol.py and cli/server/supervisor.py still do what they say, run tests/hostile and "
        "tests/cli/server/test_supervisor.py, and put the new digest here."
    )


def test_uvicorn_is_capped_to_the_minor_version_that_is_installed() -> None:
    major, minor = version("uvicorn").split(".")[:2]
    (required,) = [text for text in requires("factory-logs") or () if text.startswith("uvicorn")]
    assert f"<{major}.{int(minor) + 1}" in required
