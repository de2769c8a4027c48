"""Failed logins, counted by all workers together.

Revision 0040. The table is unlogged: counting an attempt needs no flush of the disk, and a crash of PostgreSQL resets
all counts.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, TIMESTAMP

revision = "0040"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "login_tries",
        sa.Column("key", BYTEA(), primary_key=True),
        sa.Column("tried_at", ARRAY(TIMESTAMP()), nullable=False),
        sa.Column("ends_at", TIMESTAMP(), nullable=False),
        prefixes=["UNLOGGED"],
    )
    op.create_index("ix_login_tries_ends_at", "login_tries", ["ends_at"])


def downgrade() -> None:
    op.drop_table("login_tries")
