"""Store when each retention policy has last run, so that no restart repeats or skips a run.

Revision 0070.
"""

import sqlalchemy as sa
from alembic import op

revision = "0070"
down_revision = "0060"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "retention_policies",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("done_for", sa.TIMESTAMP, nullable=False),
        sa.Column("tried_at", sa.TIMESTAMP),
    )


def downgrade() -> None:
    op.drop_table("retention_policies")
