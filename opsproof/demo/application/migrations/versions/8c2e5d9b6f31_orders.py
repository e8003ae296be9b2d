"""Orders and their lines."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "8c2e5d9b6f31"
down_revision = "4b1f0c7a2d10"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables of orders."""
    op.create_table(
        "sale_order",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String, nullable=False, unique=True),
        sa.Column("partner_id", sa.Integer, sa.ForeignKey("res_partner.id"), nullable=False, index=True),
        sa.Column("state", sa.String, nullable=False, server_default="draft"),
        sa.Column("date_order", sa.DateTime, nullable=False),
        sa.Column("note", sa.Text),
        sa.CheckConstraint("state IN ('draft', 'sent', 'sale', 'cancel')", name="sale_order_state_check"),
    )
    op.create_table(
        "sale_order_line",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "order_id", sa.Integer, sa.ForeignKey("sale_order.id", ondelete="CASCADE"), nullable=False, index=True
        ),
        sa.Column("sequence", sa.Integer, nullable=False, server_default="10"),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("quantity", sa.Numeric(12, 3), nullable=False),
        sa.Column("price_unit", sa.Numeric(12, 2), nullable=False),
    )


def downgrade() -> None:
    """Drop the tables of orders."""
    op.drop_table("sale_order_line")
    op.drop_table("sale_order")
