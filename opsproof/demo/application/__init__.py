"""A small Odoo-shaped web application: what the demo backs up.

It knows nothing of opsproof. Like Odoo it reads an odoo.conf, keeps its rows in PostgreSQL and its attachments in
`data_dir/filestore/{dbname}/{sha1[:2]}/{sha1}`, the file first and the row after it. Its schema is an Alembic
history (`migrations/`), its sample data is made by `seed`, and `writer` is a client that never rests.
"""
