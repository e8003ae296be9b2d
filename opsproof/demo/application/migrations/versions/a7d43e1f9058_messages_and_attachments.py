"""Messages and attachments; an attachment's content is in the filestore, under its SHA-1."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "a7d43e1f9058"
down_revision = "8c2e5d9b6f31"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables of messages and attachments."""
    op.create_table(
        "mail_message",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model", sa.String),
        sa.Column("res_id", sa.Integer),
        sa.Column("message_type", sa.String, nullable=False),
        sa.Column("subject", sa.String),
        sa.Column("body", sa.Text),
        sa.Column("email_from", sa.String),
        sa.Column("author_id", sa.Integer, sa.ForeignKey("res_partner.id", ondelete="SET NULL")),
        sa.Column("date", sa.DateTime, nullable=False),
    )
    op.create_table(
        "ir_attachment",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("res_model", sa.String),
        sa.Column("res_id", sa.Integer),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("url", sa.String(1024)),
        sa.Column("db_datas", sa.LargeBinary),
        sa.Column("store_fname", sa.String),
        sa.Column("checksum", sa.String(40)),
        sa.Column("file_size", sa.Integer),
        sa.Column("mimetype", sa.String),
        sa.Column("create_date", sa.DateTime, nullable=False, server_default=sa.text("(now() AT TIME ZONE 'UTC')")),
    )


def downgrade() -> None:
    """Drop the tables of messages and attachments; the filestore's files stay."""
    op.drop_table("ir_attachment")
    op.drop_table("mail_message")
