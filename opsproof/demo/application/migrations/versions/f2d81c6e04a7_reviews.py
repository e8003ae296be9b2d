"""Reviews: what customers say of their orders."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "f2d81c6e04a7"
down_revision = "e51a7f30c9b2"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; a review goes with its order."""
    op.create_table(
        "sale_review",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "order_id", sa.Integer, sa.ForeignKey("sale_order.id", ondelete="CASCADE"), nullable=False, index=True
        ),
        sa.Column("stars", sa.SmallInteger, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("create_date", sa.DateTime, nullable=False, server_default=sa.text("(now() AT TIME ZONE 'UTC')")),
        sa.CheckConstraint("stars BETWEEN 1 AND 5", name="sale_review_stars_check"),
    )


def downgrade() -> None:
    """Drop the table, with all reviews."""
    op.drop_table("sale_review")
