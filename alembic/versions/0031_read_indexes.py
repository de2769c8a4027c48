"""Indexes for the usual queries, chosen by measurement (docs/explanation/indexes.md).

Revision 0031. Each index ends with the id, so that an index-only scan finds the number of matching logs and the first
one. The GIN index finds logs by the content of their tags.
"""

import sqlalchemy as sa
from alembic import op

from factory_logs.db.migrations import change_indexes

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
