"""Every knob of the device client, with its unit and its default; docs/devices.md explains the choices."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

MIB = 1024 * 1024
NonNegative = Annotated[float, Field(ge=0)]


class ClientSettings(BaseModel):
    """The client's settings. The defaults suit a jig that may lose power at any instant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fsync: Literal["full", "normal"] = Field(
        "full",
        description="full: send() returns when the log has been flushed to the disk; a power cut loses nothing. "
        "normal: send() returns when the operating system has it; a killed process loses nothing, a power cut the "
        "logs of about the last `sync_seconds`",
    )
    sync_seconds: PositiveFloat = Field(1.0, description="With fsync normal: how often the sender flushes the spool")
    max_spool_bytes: PositiveInt = Field(256 * MIB, description="How much the spool holds, rejected logs included")
    when_full: Literal["block", "drop_oldest"] = Field(
        "block",
        description="block: send() waits for room up to `block_seconds`, then raises SpoolFullError. "
        "drop_oldest: the oldest logs make room and are counted",
    )
    block_seconds: NonNegative = Field(30.0, description="How long send() waits for room; 0 raises at once")

    max_record_bytes: PositiveInt = Field(256 * 1024, description="The largest log as compact JSON, as on the server")
    max_nesting: PositiveInt = Field(32, description="How deep `tags` and `fields` may nest, as on the server")

    max_batch_records: PositiveInt = Field(1000, description="The most logs in one request")
    max_batch_bytes: PositiveInt = Field(512 * 1024, description="The most bytes in one request, before compression")
    linger_seconds: NonNegative = Field(0.2, description="How long a log waits for others to share its request")
    poll_seconds: PositiveFloat = Field(
        1.0, description="How often the sender looks for logs of other processes, and waits for another sender's end"
    )
    encoding: Literal["zstd", "gzip", "identity"] = Field("zstd", description="How requests are compressed")

    connect_timeout_seconds: PositiveFloat = Field(10.0, description="How long reaching the server may take")
    answer_timeout_seconds: PositiveFloat = Field(60.0, description="How long the server may be silent in a request")
    whole_answer_seconds: PositiveFloat = Field(
        300.0, description="How long an answer's body may take to arrive, however little of it comes at a time"
    )
    backoff_base_seconds: PositiveFloat = Field(0.5, description="The longest wait after a first failure; it doubles")
    backoff_cap_seconds: PositiveFloat = Field(60.0, description="The longest wait after many failures")
    max_retry_after_seconds: PositiveFloat = Field(3600.0, description="The longest Retry-After that is believed")
    key_life_seconds: PositiveFloat = Field(
        23 * 3600.0,
        description="How long a batch may be sent again under its Idempotency-Key; below the 24 hours that the "
        "server keeps it",
    )
    in_doubt: Literal["ask", "resend", "set_aside"] = Field(
        "ask",
        description="What becomes of a batch in doubt: its first answer was lost and its key tells nothing any more. "
        "ask: look for its logs on the server. resend: they may be stored twice. set_aside: with the rejected ones, "
        "for a person to decide",
    )
    exit_seconds: NonNegative = Field(
        5.0, description="How long close(), or the end of the script, waits for a working link to take what is left"
    )
