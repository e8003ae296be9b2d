"""What the shop answers to a review."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "09b7e3a5d1c4"
down_revision = "f2d81c6e04a7"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; a review without an answer has none."""
    op.add_column("sale_review", sa.Column("answer", sa.Text))


def downgrade() -> None:
    """Drop the column, with all answers."""
    op.drop_column("sale_review", "answer")
