"""Store from which ids logs were removed, so that sums over other ids stay known after retention.

Revision 0080.
"""

import sqlalchemy as sa
from alembic import op

revision = "0080"
down_revision = "0070"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "removals",
        sa.Column("block", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("logs", sa.BigInteger, nullable=False),
    )
    op.add_column("known_counts", sa.Column("in_parts", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    op.execute("DELETE FROM known_counts WHERE in_parts")
    op.drop_column("known_counts", "in_parts")
    op.drop_table("removals")
