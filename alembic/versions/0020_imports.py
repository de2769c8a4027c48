"""The table `imports`: each part of each dump is stored once, however often the command runs.

Revision 0020. The row of a part is committed in one transaction with its logs.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import BYTEA, TIMESTAMP

revision = "0020"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "imports",
        sa.Column("source", BYTEA(), primary_key=True),
        sa.Column("part", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("logs", sa.BigInteger(), nullable=False),
        sa.Column("rejected", sa.BigInteger(), nullable=False),
        sa.Column("created_at", TIMESTAMP(), server_default=sa.text("(now() at time zone 'utc')"), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("imports")
