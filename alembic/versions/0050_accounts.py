"""Disable users, label tokens, and issue tokens that may only store logs.

Revision 0050. Idempotency keys no longer refer to their user: a running write must not fail because of its key if its
user is deleted, and keys are purged after a day anyway.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0050"
down_revision = "0040"
branch_labels = None
depends_on = None

KEYS_USER = "idempotency_keys_user_id_fkey"


def upgrade() -> None:
    op.add_column("users", sa.Column("disabled_at", TIMESTAMP()))
    op.add_column("tokens", sa.Column("label", sa.String(255)))
    op.add_column("tokens", sa.Column("only_write", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.drop_constraint(KEYS_USER, "idempotency_keys", type_="foreignkey")


def downgrade() -> None:
    op.execute("DELETE FROM idempotency_keys WHERE user_id NOT IN (SELECT user_id FROM users)")
    op.create_foreign_key(KEYS_USER, "idempotency_keys", "users", ["user_id"], ["user_id"], ondelete="CASCADE")
    op.drop_column("tokens", "only_write")
    op.drop_column("tokens", "label")
    op.drop_column("users", "disabled_at")
