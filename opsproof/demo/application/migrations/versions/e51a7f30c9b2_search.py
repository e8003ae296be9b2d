"""Faster search: contacts by parts of their name, messages by record, attachments by file."""

from __future__ import annotations

from alembic import op

revision = "e51a7f30c9b2"
down_revision = "c3906b8e42d7"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the indexes; pg_trgm is trusted, so the database's owner may create it."""
    op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    op.create_index(
        "res_partner_name_trgm_index",
        "res_partner",
        ["name"],
        postgresql_using="gin",
        postgresql_ops={"name": "gin_trgm_ops"},
    )
    op.create_index("mail_message_model_res_id_index", "mail_message", ["model", "res_id"])
    op.create_index("ir_attachment_store_fname_index", "ir_attachment", ["store_fname"])


def downgrade() -> None:
    """Drop the indexes; the extension stays, for other things may use it."""
    op.drop_index("ir_attachment_store_fname_index")
    op.drop_index("mail_message_model_res_id_index")
    op.drop_index("res_partner_name_trgm_index")
