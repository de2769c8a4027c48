"""Create the first tables: logs, repairs, users, tokens, idempotency keys.

The tables are written out and not derived from the models: a migration must stay the same when the models change.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import BYTEA, JSONB, TIMESTAMP

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

PROCESSES = ("Repair and Return", "Replaced", "Repossessed", "Broken on Arrival")


def created_at() -> sa.Column:
    return sa.Column("created_at", TIMESTAMP(), server_default=sa.text("(now() at time zone 'utc')"), nullable=False)


def metadata_columns() -> list[sa.Column]:
    return [
        created_at(),
        sa.Column("created_by", sa.Text()),
        sa.Column("modified_at", TIMESTAMP()),
        sa.Column("modified_by", sa.Text()),
    ]


def upgrade() -> None:
    op.create_table(
        "repairs",
        sa.Column("repair_id", sa.Integer(), sa.Identity(always=False), primary_key=True),
        sa.Column("product_imei", sa.String(15), nullable=False),
        sa.Column("arrival_date", TIMESTAMP()),
        sa.Column("refurbishment_date", TIMESTAMP()),
        sa.Column("measured_battery_capacity", sa.Float()),
        sa.Column("process", sa.Text()),
        sa.Column("pending_status", sa.Text()),
        sa.Column("outcome", sa.Text()),
        *metadata_columns(),
        sa.CheckConstraint(f"process in ({', '.join(map(repr, PROCESSES))})", name="process_is_known"),
    )
    op.create_table(
        "factory_logs",
        sa.Column("factory_log_id", sa.BigInteger(), sa.Identity(always=False), primary_key=True),
        sa.Column("app_name", sa.String(255), nullable=False),
        sa.Column("product_imei", sa.String(15)),
        sa.Column("repair_id", sa.Integer(), sa.ForeignKey("repairs.repair_id")),
        sa.Column("timestamp", TIMESTAMP(), nullable=False),
        sa.Column("tags", JSONB()),
        sa.Column("fields", JSONB()),
        *metadata_columns(),
    )
    op.create_index("ix_factory_logs_product_imei_timestamp", "factory_logs", ["product_imei", "timestamp"])
    op.create_index("ix_factory_logs_app_name_timestamp", "factory_logs", ["app_name", "timestamp"])
    op.create_index("ix_factory_logs_timestamp", "factory_logs", ["timestamp"])
    op.create_index(
        "ix_factory_logs_repair_id",
        "factory_logs",
        ["repair_id"],
        postgresql_where=sa.text("repair_id is not null"),
    )
    op.create_table(
        "users",
        sa.Column("user_id", sa.Integer(), sa.Identity(always=False), primary_key=True),
        sa.Column("username", sa.String(255), nullable=False, unique=True),
        sa.Column("display_name", sa.String(255), nullable=False),
        sa.Column("password_hash", sa.Text()),
        sa.Column("permission", sa.Text(), nullable=False),
        created_at(),
    )
    op.create_table(
        "tokens",
        sa.Column("token_hash", BYTEA(), primary_key=True),
        sa.Column("user_id", sa.Integer(), sa.ForeignKey("users.user_id", ondelete="CASCADE"), nullable=False),
        created_at(),
        sa.Column("last_used_at", TIMESTAMP()),
        sa.Column("idle_seconds", sa.Integer()),
        sa.Column("expires_at", TIMESTAMP()),
        sa.Column("revoked_at", TIMESTAMP()),
    )
    op.create_index("ix_tokens_user_id", "tokens", ["user_id"])
    op.create_table(
        "idempotency_keys",
        sa.Column("user_id", sa.Integer(), sa.ForeignKey("users.user_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("fingerprint", BYTEA(), nullable=False),
        created_at(),
        sa.Column("factory_log_id", sa.BigInteger()),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("answer", BYTEA()),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])


def downgrade() -> None:
    for table in ("idempotency_keys", "tokens", "users", "factory_logs", "repairs"):
        op.drop_table(table)
