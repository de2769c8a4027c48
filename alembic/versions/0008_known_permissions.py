"""Allow only the five permission levels: a typing error in SQL must not create a user whose every request fails."""

from alembic import op

revision = "0008"
down_revision = "0001"
branch_labels = None
depends_on = None

LEVELS = ("OVERVIEW", "TECHNICAL", "ADMIN", "FACTORY", "SYSTEM")


def upgrade() -> None:
    op.create_check_constraint("permission_is_known", "users", f"permission in ({', '.join(map(repr, LEVELS))})")


def downgrade() -> None:
    op.drop_constraint("permission_is_known", "users", type_="check")
