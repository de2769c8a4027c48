"""Indexes for the questions that are asked, by measurement (docs/indexes.md).

Revision 0031. The id at their end lets an index alone answer how many logs match and which is the first; GIN finds a
log by what its tags hold.
"""

import sqlalchemy as sa
from alembic import op

from factory_logs.db.index_changes import change_indexes

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

BEFORE = {
    "ix_factory_logs_product_imei_timestamp": 'btree (product_imei, "timestamp")',
    "ix_factory_logs_app_name_timestamp": 'btree (app_name, "timestamp")',
    "ix_factory_logs_timestamp": 'btree ("timestamp")',
    "ix_factory_logs_repair_id": "btree (repair_id) WHERE (repair_id IS NOT NULL)",
    "ix_factory_logs_tags": None,
}
AFTER = {
    "ix_factory_logs_product_imei_timestamp": 'btree (product_imei, "timestamp", factory_log_id)',
    "ix_factory_logs_app_name_timestamp": 'btree (app_name, "timestamp", factory_log_id)',
    "ix_factory_logs_timestamp": 'btree ("timestamp", factory_log_id)',
    "ix_factory_logs_repair_id": "btree (repair_id, factory_log_id) WHERE (repair_id IS NOT NULL)",
    "ix_factory_logs_tags": "gin (tags jsonb_path_ops)",
}


def upgrade() -> None:
    change_indexes(op, "factory_logs", AFTER)
    op.execute("DELETE FROM known_counts")
    op.add_column("known_counts", sa.Column("lowest", sa.BigInteger(), nullable=False))


def downgrade() -> None:
    change_indexes(op, "factory_logs", BEFORE)
    op.drop_column("known_counts", "lowest")
