"""An order's total, computed from its lines once and kept from then on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "c3906b8e42d7"
down_revision = "a7d43e1f9058"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, fill it, and only then forbid that it is empty."""
    op.add_column("sale_order", sa.Column("amount_total", sa.Numeric(14, 2)))
    op.execute(
        "UPDATE sale_order SET amount_total = coalesce((SELECT sum(round(l.quantity * l.price_unit, 2)) "
        "FROM sale_order_line l WHERE l.order_id = sale_order.id), 0)"
    )
    op.alter_column("sale_order", "amount_total", nullable=False)


def downgrade() -> None:
    """Drop the column: the lines still know the total."""
    op.drop_column("sale_order", "amount_total")
