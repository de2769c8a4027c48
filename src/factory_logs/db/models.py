"""The tables, as ORM models. The one place where columns are listed on the database's side.

`timestamp without time zone` everywhere, always UTC. The schema stays portable to a Citus cluster: identity
`by default`, no triggers, foreign keys only to small tables, and no cross-row constraint on `factory_logs` but its
primary key (docs/decisions.md).
"""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, SmallInteger, String, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from factory_logs.schemas.repair import Process

UTC_NOW = text("(now() at time zone 'utc')")
TIME = TIMESTAMP(timezone=False)
LEVELS = ("OVERVIEW", "TECHNICAL", "ADMIN", "FACTORY", "SYSTEM")
"""What `security.levels` gives a meaning; a test holds the two together, as this layer lies below that one."""


class Base(DeclarativeBase):
    """The registry of all tables."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: TIME, Any: JSONB(none_as_null=True)}


class Metadata:
    """The four columns the system sets; a client's values for them are ignored (SPEC 1)."""

    created_at: Mapped[datetime] = mapped_column(server_default=UTC_NOW)
    created_by: Mapped[str | None] = mapped_column(Text)
    modified_at: Mapped[datetime | None]
    modified_by: Mapped[str | None] = mapped_column(Text)


class FactoryLog(Metadata, Base):
    """One log of one app about, usually, one unit (SPEC 1). Never changed once stored."""

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


class Repair(Metadata, Base):
    """One stay of one unit in a repair centre; `factory_logs.repair_id` points here (SPEC 2)."""

    __tablename__ = "repairs"
    __table_args__ = (
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
    """Somebody, or some device, that may call the API."""

    __tablename__ = "users"
    __table_args__ = (CheckConstraint(f"permission in ({', '.join(map(repr, LEVELS))})", name="permission_is_known"),)

    user_id: Mapped[int] = mapped_column(Identity(always=False), primary_key=True)
    username: Mapped[str] = mapped_column(String(255), unique=True)
    display_name: Mapped[str] = mapped_column(String(255))
    password_hash: Mapped[str | None] = mapped_column(Text)
    permission: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(server_default=UTC_NOW)


class Token(Base):
    """A token, stored only as its SHA-256 (SPEC 3).

    `idle_seconds` is the sliding life after the last use, null for a token whose end does not move;
    `expires_at` is the end as it stands now, null for never.
    """

    __tablename__ = "tokens"

    token_hash: Mapped[bytes] = mapped_column(BYTEA, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.user_id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=UTC_NOW)
    last_used_at: Mapped[datetime | None]
    idle_seconds: Mapped[int | None]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class IdempotencyKey(Base):
    """The first answer to a write that carried an Idempotency-Key, kept 24 hours (SPEC 7).

    A single log's answer is rebuilt from `factory_log_id`, as records never change; any other answer is in `answer`.
    """

    __tablename__ = "idempotency_keys"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.user_id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(BYTEA)
    created_at: Mapped[datetime] = mapped_column(server_default=UTC_NOW, index=True)
    factory_log_id: Mapped[int | None] = mapped_column(BigInteger)
    status: Mapped[int] = mapped_column(SmallInteger)
    answer: Mapped[bytes | None] = mapped_column(BYTEA)


class Import(Base):
    """A part of a dump that has been imported; committed with its logs, kept for ever (SPEC 8).

    `source` is the SHA-256 of the dump and of how it was read, so the same dump is known again by any name.
    """

    __tablename__ = "imports"

    source: Mapped[bytes] = mapped_column(BYTEA, primary_key=True)
    part: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    logs: Mapped[int] = mapped_column(BigInteger)
    rejected: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=UTC_NOW)


class RetentionRun(Base):
    """A run of `factory-logs retention` that took logs away; committed with each batch of it, kept for ever.

    The sum of `removed` changes with whatever is taken away, and nothing else changes it.
    """

    __tablename__ = "retention_runs"

    run_id: Mapped[int] = mapped_column(Identity(always=False), primary_key=True)
    cutoff: Mapped[datetime]
    removed: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=UTC_NOW)


class KnownCount(Base):
    """How many logs up to a settled id match a filter, kept where counting them took long (db/counts.py).

    `digest` names the filter, `file` and `removed` the state of the table that it was counted in.
    """

    __tablename__ = "known_counts"

    digest: Mapped[bytes] = mapped_column(BYTEA, primary_key=True)
    file: Mapped[int] = mapped_column(BigInteger)
    removed: Mapped[int] = mapped_column(BigInteger)
    up_to: Mapped[int] = mapped_column(BigInteger)
    logs: Mapped[int] = mapped_column(BigInteger)
    lowest: Mapped[int] = mapped_column(BigInteger)
    made_at: Mapped[datetime] = mapped_column(server_default=UTC_NOW)


class LoginTries(Base):
    """When the tries of the last minutes were to log in from one address, or as one user from it.

    `key` is a hash of those; the row may be forgotten at `ends_at`. Unlogged: a crash of PostgreSQL empties it.
    """

    __tablename__ = "login_tries"
    __table_args__ = ({"prefixes": ["UNLOGGED"]},)

    key: Mapped[bytes] = mapped_column(BYTEA, primary_key=True)
    tried_at: Mapped[list[datetime]] = mapped_column(ARRAY(TIME))
    ends_at: Mapped[datetime] = mapped_column(index=True)
