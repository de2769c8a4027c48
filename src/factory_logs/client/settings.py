"""Define the settings of the client with units and defaults, and check the server's URL and the CA file.

docs/how-to/devices.md explains the choices.
"""

import os
import ssl
from pathlib import Path
from typing import Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from factory_logs.client.response_timer import WHOLE_RESPONSE_SECONDS
from factory_logs.client.spool_reserve import RESERVE_BYTES

MIB = 1024 * 1024


class ClientSettings(BaseModel):
    """The client's settings. The defaults suit a jig that may lose power at any time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fsync: Literal["full", "normal"] = Field(
        "full",
        description="full: send() returns when the log has been flushed to the disk, so a power cut loses no log. "
        "normal: send() returns when the operating system has the log; a killed process loses no log, but a power cut "
        "loses the logs of about the last `sync_seconds`",
    )
    sync_seconds: PositiveFloat = Field(
        1.0, description="With fsync normal: how often the spool is flushed to the disk"
    )
    max_spool_bytes: PositiveInt = Field(
        256 * MIB, description="The maximum size of all logs in the spool, including rejected logs"
    )
    reserve_bytes: NonNegativeInt = Field(
        RESERVE_BYTES,
        description="The reserved space on the disk, with which a spool that has filled its disk can still be sent; 0 "
        "reserves nothing",
    )
    when_full: Literal["block", "drop_oldest"] = Field(
        "block",
        description="If the spool is full. block: send() waits up to `block_seconds` for free space, then raises "
        "SpoolFullError. drop_oldest: the oldest logs are dropped and counted",
    )
    block_seconds: NonNegativeFloat = Field(
        30.0, description="How long send() waits for free space; with 0 it raises at once"
    )

    max_record_bytes: PositiveInt = Field(
        256 * 1024, description="The maximum size of a log as compact JSON, as on the server"
    )
    max_nesting: PositiveInt = Field(32, description="The maximum nesting of `tags` and `fields`, as on the server")

    max_batch_records: PositiveInt = Field(1000, description="The maximum number of logs in one request")
    max_batch_bytes: PositiveInt = Field(
        512 * 1024, description="The maximum number of bytes in one request, before compression"
    )
    linger_seconds: NonNegativeFloat = Field(
        0.2, description="How long a log waits for other logs, to be sent in the same request"
    )
    poll_seconds: PositiveFloat = Field(
        1.0,
        description="How often a client checks for logs of other processes, and whether the process that sends "
        "has ended",
    )
    encoding: Literal["zstd", "gzip", "identity"] = Field("zstd", description="How requests are compressed")

    connect_timeout_seconds: PositiveFloat = Field(10.0, description="How long connecting to the server may take")
    response_timeout_seconds: PositiveFloat = Field(60.0, description="How long the server may be silent in a request")
    whole_response_seconds: PositiveFloat = Field(
        WHOLE_RESPONSE_SECONDS, description="How long a complete response may take to arrive after its request was sent"
    )
    backoff_base_seconds: PositiveFloat = Field(
        0.5, description="The maximum wait after a first failure; it doubles with each failure"
    )
    backoff_cap_seconds: PositiveFloat = Field(60.0, description="The maximum wait after many failures")
    max_retry_after_seconds: PositiveFloat = Field(
        3600.0, description="The maximum time that the client waits for a Retry-After"
    )
    key_life_seconds: PositiveFloat = Field(
        23 * 3600.0,
        description="How long a batch is retried with its Idempotency-Key; less than the 24 hours for which the server "
        "stores the key",
    )
    in_doubt: Literal["ask", "resend", "set_aside"] = Field(
        "ask",
        description="What to do with a batch in doubt: its first response was lost, and its key no longer shows "
        "whether it is stored. ask: look for its logs on the server. resend: send them again; they may be stored "
        "twice. set_aside: put them with the rejected logs, for a person to decide",
    )
    ca_file: Path | None = Field(
        None,
        description="A PEM file with the certificates of the CAs to trust for https, such as a private CA; no other CA "
        "is then trusted. None: trust the CAs of certifi, or of SSL_CERT_FILE in the environment",
    )
    exit_seconds: NonNegativeFloat = Field(
        5.0,
        description="How long close(), or the end of the script, waits until the remaining logs are delivered "
        "over a working link",
    )


def checked_url(url: str) -> str:
    """Return the URL. Raises ValueError if it is not an HTTP or HTTPS URL."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"the URL is not valid: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"the URL must be like https://logs.example.com, not {url!r}")
    return url


def tls_verification(ca_file: str | os.PathLike[str] | None) -> ssl.SSLContext | Literal[True]:
    """Return httpx's `verify` for `ca_file`; True for None. Raises ValueError if the file cannot be read or contains no
    certificate."""
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=Path(ca_file).expanduser())
    except OSError as error:  # including SSLError
        why = error.strerror if not isinstance(error, ssl.SSLError) else "it has no certificate in PEM"
        raise ValueError(f"the CA file {ca_file} cannot be used: {why}") from None
