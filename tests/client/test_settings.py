"""The CA file of the client: a wrong one is an error at once, with the file's name."""

from pathlib import Path

import pytest

from factory_logs.client import Client, ClientSettings, Reader
from factory_logs.client.settings import tls_verification

URL = "https://logs.example"


def test_without_a_file_the_public_cas_are_trusted() -> None:
    assert tls_verification(None) is True


@pytest.mark.parametrize(("content", "why"), [(None, "No such file or directory"), ("text", "no certificate in PEM")])
def test_an_invalid_ca_file_is_an_error_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, why: str
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    expected = f"the CA file {file} cannot be used: .*{why}"
    with pytest.raises(ValueError, match=expected):
        Client(URL, "t", spool=tmp_path / "spool", settings=ClientSettings(ca_file=file))
    with pytest.raises(ValueError, match=expected):
        Reader(URL, "t", ca_file=file)
    monkeypatch.setenv("FACTORY_LOGS_CA_FILE", str(file))
    with pytest.raises(ValueError, match=expected):
        Reader(URL, "t")
