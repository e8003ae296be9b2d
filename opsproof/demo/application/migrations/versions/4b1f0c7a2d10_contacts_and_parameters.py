"""Contacts, parameters and modules: what every Odoo database has."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "4b1f0c7a2d10"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the base tables."""
    op.create_table(
        "res_partner",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("email", sa.String),
        sa.Column("phone", sa.String),
        sa.Column("street", sa.String),
        sa.Column("zip", sa.String),
        sa.Column("city", sa.String),
        sa.Column("is_company", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("active", sa.Boolean, nullable=False, server_default=sa.true()),
        sa.Column("comment", sa.Text),
        sa.Column("create_date", sa.DateTime, nullable=False, server_default=sa.text("(now() AT TIME ZONE 'UTC')")),
        sa.Column("parent_id", sa.Integer, sa.ForeignKey("res_partner.id", ondelete="SET NULL")),
    )
    op.create_table(
        "ir_config_parameter",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("key", sa.String, nullable=False, unique=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table(
        "ir_module_module",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String, nullable=False, unique=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("latest_version", sa.String),
    )


def downgrade() -> None:
    """Drop the base tables."""
    op.drop_table("ir_module_module")
    op.drop_table("ir_config_parameter")
    op.drop_table("res_partner")
