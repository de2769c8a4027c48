"""Store sums by bucket and group in addition to counts (db/count_cache.py). Index repairs by unit.

Revision 0060. `content` is null for a count. Workers of the previous version read only those rows.
"""

from alembic import op

from factory_logs.db.migrations import change_indexes

revision = "0060"
down_revision = "0050"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Repeatable, as the index may be created in a transaction of its own.
    op.execute("ALTER TABLE known_counts ADD COLUMN IF NOT EXISTS content BYTEA")
    change_indexes(op, "repairs", {"ix_repairs_product_imei": "btree (product_imei, repair_id)"})


def downgrade() -> None:
    op.execute("DELETE FROM known_counts WHERE content IS NOT NULL")
    change_indexes(op, "repairs", {"ix_repairs_product_imei": None})
    op.drop_column("known_counts", "content")
