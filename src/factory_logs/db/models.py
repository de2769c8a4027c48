"""The tables as ORM models, which the program uses. Migrations change the tables in the database.

All times are `timestamp without time zone` in UTC. The schema stays portable to a Citus cluster: identity `by default`,
no triggers, foreign keys only to small tables, and no constraint across the rows of `factory_logs` except its primary
key (docs/explanation/decisions.md).
"""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    SmallInteger,
    String,
    Text,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from factory_logs.permissions import Level
from factory_logs.schemas.repair import Process

UTC_NOW = text("(now() at time zone 'utc')")
TIME = TIMESTAMP(timezone=False)


class Base(DeclarativeBase):
    """The registry of all tables."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: TIME, Any: JSONB(none_as_null=True)}


class Metadata:
    """The columns that the service sets. It ignores values from clients (docs/reference/http-api.md#records)."""

    created_at: Mapped[datetime] = mapped_column(server_default=UTC_NOW)
    created_by: Mapped[str | None] = mapped_column(Text)
    modified_at: Mapped[datetime | None]
    modified_by: Mapped[str | None] = mapped_column(Text)


class FactoryLog(Metadata, Base):
    """One log of one app, usually about one unit (docs/reference/http-api.md#records). It never changes."""

    __tablename__ = "factory_logs"
    __table_args__ = (
        Index("ix_factory_logs_product_imei_timestamp", "product_imei", "timestamp", "factory_log_id"),
        Index("ix_factory_logs_app_name_timestamp", "app_name", "timestamp", "factory_log_id"),
        Index("ix_factory_logs_timestamp", "timestamp", "factory_log_id"),
        Index(
            "ix_factory_logs_repair_id", "repair_id", "factory_log_id", postgresql_where=text("repair_id is not null")
        ),
        Index("ix_factory_logs_tags", "tags", postgresql_using="gin", postgresql_ops={"tags": "jsonb_path_ops"}),
    )

    factory_log_id: Mapped[int] = mapped_column(BigInteger, Identity(always=False), primary_key=True)
    app_name: Mapped[str] = mapped_column(String(255))
    product_imei: Mapped[str | None] = mapped_column(String(15))
    repair_id: Mapped[int | None] = mapped_column(ForeignKey("repairs.repair_id"))
    timestamp: Mapped[datetime]
    tags: Mapped[Any | None]
    fields: Mapped[Any | None]


LOG_COLUMNS = tuple(
    column.name
    for column in FactoryLog.__table__.columns
    if not column.primary_key and column.name not in Metadata.__annotations__
)
"""The columns of a log that the client sets, in the order of the table."""


class Repair(Metadata, Base):
    """One stay of one unit in a repair centre; `factory_logs.repair_id` points here
    (docs/reference/http-api.md#calls)."""

    __tablename__ = "repairs"
    __table_args__ = (
        Index("ix_repairs_product_imei", "product_imei", "repair_id"),
        CheckConstraint(f"process in ({', '.join(repr(p.value) for p in Process)})", name="process_is_known"),
    )

    repair_id: Mapped[int] = mapped_column(Identity(always=False), primary_key=True)
    product_imei: Mapped[str] = mapped_column(String(15))
    arrival_date: Mapped[datetime | None]
    refurbishment_date: Mapped[datetime | None]
    measured_battery_capacity: Mapped[float | None]
    process: Mapped[str | None] = mapped_column(Text)
    pending_status: Mapped[str | None] = mapped_column(Text)
    outcome: Mapped[str | None] = mapped_column(Text)


class User(Base):
    """A person or a device that may call the API.

    `disabled_at` is null for a user who may log in and use tokens. A log contains its user's name as text, which stays
    if the user is deleted.
    """

    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint(f"permission in ({', '.join(repr(e.value) for e in Level)})", name="permission_is_known"),
    )

    user_id: Mapped[int] = mapped_column(Identity(always=False), primary_key=True)
    username: Mapped[str] = mapped_column(String(255), unique=True)
    display_name: Mapped[str] = mapped_column(String(255))
    password_hash: Mapped[str | None] = mapped_column(Text)
    permission: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(server_default=UTC_NOW)
    disabled_at: Mapped[datetime | None]


class Token(Base):
    """A token, stored only as its SHA-256 (docs/reference/http-api.md#authentication).

    `idle_seconds` is the time from the last use of the token to its end, or null if the end is fixed. `expires_at` is
    its current end, or null for never. A token with `only_write` may only store logs.
    """

    __tablename__ = "tokens"

    token_hash: Mapped[bytes] = mapped_column(BYTEA, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.user_id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=UTC_NOW)
    last_used_at: Mapped[datetime | None]
    idle_seconds: Mapped[int | None]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    label: Mapped[str | None] = mapped_column(String(255))
    only_write: Mapped[bool] = mapped_column(Boolean, server_default=text("false"))


class IdempotencyKey(Base):
    """The response to the first write with an Idempotency-Key, stored for 24 hours
    (docs/reference/http-api.md#idempotency).

    The response to a single log is rebuilt from `factory_log_id`, because records never change. The column `answer`
    contains any other response. `user_id` is not a foreign key: a write must not fail because of its key if its user is
    deleted meanwhile.
    """

    __tablename__ = "idempotency_keys"

    user_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(BYTEA)
    created_at: Mapped[datetime] = mapped_column(server_default=UTC_NOW, index=True)
    factory_log_id: Mapped[int | None] = mapped_column(BigInteger)
    status: Mapped[int] = mapped_column(SmallInteger)
    answer: Mapped[bytes | None] = mapped_column(BYTEA)


class Import(Base):
    """A part of a file that has been imported. It is committed with its records and never deleted.

    `source` is the SHA-256 of the file's bytes and of the options for reading them, so the same file is recognised
    under any name. `logs` is the number of stored records of the part, logs or repairs.
    """

    __tablename__ = "imports"

    source: Mapped[bytes] = mapped_column(BYTEA, primary_key=True)
    part: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    logs: Mapped[int] = mapped_column(BigInteger)
    rejected: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=UTC_NOW)


class RetentionRun(Base):
    """A run of `factory-logs retention` that removed logs, or an import of an archive that restored logs.

    It is committed with each of its batches and never deleted. `removed` is the number of removed or restored logs. The
    sum of `removed` changes if and only if logs below the watermark are removed or restored. It never decreases, so it
    identifies one state of the table.
    """

    __tablename__ = "retention_runs"

    run_id: Mapped[int] = mapped_column(Identity(always=False), primary_key=True)
    cutoff: Mapped[datetime]
    removed: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=UTC_NOW)


class Removal(Base):
    """The number of logs of a block of ids that were removed or restored (db/removals.py), counted as in
    RetentionRun."""

    __tablename__ = "removals"

    block: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    logs: Mapped[int] = mapped_column(BigInteger)


class RetentionPolicy(Base):
    """A policy of the file that `serve` applies each day (retention/schedule.py).

    `done_for` is the scheduled hour up to which the policy has run. For a new policy it is the last scheduled hour.
    `tried_at` is the beginning of the last run.
    """

    __tablename__ = "retention_policies"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    done_for: Mapped[datetime]
    tried_at: Mapped[datetime | None]


class KnownCount(Base):
    """The number of logs up to a watermark that match a filter. It is stored only if the count took long
    (db/count_cache.py).

    `digest` identifies the filter; `file` and `removed` identify the state of the table at the time of counting.
    `content` contains the sums of these logs by bucket and group (querier/sums.py), or null if only the count is
    stored. Sums `in_parts` stay after retention, because their content shows which parts are valid
    (querier/sum_parts.py).
    """

    __tablename__ = "known_counts"

    digest: Mapped[bytes] = mapped_column(BYTEA, primary_key=True)
    file: Mapped[int] = mapped_column(BigInteger)
    removed: Mapped[int] = mapped_column(BigInteger)
    up_to: Mapped[int] = mapped_column(BigInteger)
    logs: Mapped[int] = mapped_column(BigInteger)
    lowest: Mapped[int] = mapped_column(BigInteger)
    content: Mapped[bytes | None] = mapped_column(BYTEA)
    in_parts: Mapped[bool] = mapped_column(server_default=false())
    made_at: Mapped[datetime] = mapped_column(server_default=UTC_NOW)


class LoginTries(Base):
    """The times of recent login attempts from one address, or of one user from one address.

    `key` is a hash of the address, or of both. The row may be deleted after `ends_at`. The table is unlogged, so a
    crash of PostgreSQL empties it.
    """

    __tablename__ = "login_tries"
    __table_args__ = ({"prefixes": ["UNLOGGED"]},)

    key: Mapped[bytes] = mapped_column(BYTEA, primary_key=True)
    tried_at: Mapped[list[datetime]] = mapped_column(ARRAY(TIME))
    ends_at: Mapped[datetime] = mapped_column(index=True)
