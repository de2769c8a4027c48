"""The tables that keep `num_results` exact without counting all logs again: runs of retention, and counts that took
long.

Revision 0030. The row of a run is committed together with the removal of logs.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import BYTEA, TIMESTAMP

revision = "0030"
down_revision = "0020"
branch_labels = None
depends_on = None


def now(name: str) -> sa.Column:
    return sa.Column(name, TIMESTAMP(), server_default=sa.text("(now() at time zone 'utc')"), nullable=False)


def upgrade() -> None:
    op.create_table(
        "retention_runs",
        sa.Column("run_id", sa.Integer(), sa.Identity(always=False), primary_key=True),
        sa.Column("cutoff", TIMESTAMP(), nullable=False),
        sa.Column("removed", sa.BigInteger(), nullable=False),
        now("created_at"),
    )
    op.create_table(
        "known_counts",
        sa.Column("digest", BYTEA(), primary_key=True),
        sa.Column("file", sa.BigInteger(), nullable=False),
        sa.Column("removed", sa.BigInteger(), nullable=False),
        sa.Column("up_to", sa.BigInteger(), nullable=False),
        sa.Column("logs", sa.BigInteger(), nullable=False),
        now("made_at"),
    )


def downgrade() -> None:
    op.drop_table("known_counts")
    op.drop_table("retention_runs")
