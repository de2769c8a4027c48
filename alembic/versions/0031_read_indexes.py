"""Indexes for the questions that are asked, by measurement (docs/indexes.md).

Revision 0031. The id at their end lets an index alone answer how many logs match and which is the first; GIN finds a
log by what its tags hold.
"""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

BY_TIME = {
    "ix_factory_logs_product_imei_timestamp": ["product_imei", "timestamp"],
    "ix_factory_logs_app_name_timestamp": ["app_name", "timestamp"],
    "ix_factory_logs_timestamp": ["timestamp"],
}


WITH_REPAIR = {"postgresql_where": sa.text("repair_id is not null")}


def upgrade() -> None:
    for name, columns in BY_TIME.items():
        op.drop_index(name, "factory_logs")
        op.create_index(name, "factory_logs", [*columns, "factory_log_id"])
    op.drop_index("ix_factory_logs_repair_id", "factory_logs")
    op.create_index("ix_factory_logs_repair_id", "factory_logs", ["repair_id", "factory_log_id"], **WITH_REPAIR)
    op.create_index(
        "ix_factory_logs_tags",
        "factory_logs",
        ["tags"],
        postgresql_using="gin",
        postgresql_ops={"tags": "jsonb_path_ops"},
    )
    op.execute("DELETE FROM known_counts")
    op.add_column("known_counts", sa.Column("lowest", sa.BigInteger(), nullable=False))


def downgrade() -> None:
    op.drop_column("known_counts", "lowest")
    op.drop_index("ix_factory_logs_tags", "factory_logs")
    op.drop_index("ix_factory_logs_repair_id", "factory_logs")
    op.create_index("ix_factory_logs_repair_id", "factory_logs", ["repair_id"], **WITH_REPAIR)
    for name, columns in BY_TIME.items():
        op.drop_index(name, "factory_logs")
        op.create_index(name, "factory_logs", columns)
