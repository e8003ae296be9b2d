"""A small Odoo-shaped web application: what the demo backs up.

It knows nothing of opsproof, and runs nowhere but in a release (`opsproof.demo.releases`), where this package is called
`shop`: `python -m shop.server`. Like Odoo it reads an odoo.conf, keeps its rows in PostgreSQL and its attachments in
`data_dir/filestore/{dbname}/{sha1[:2]}/{sha1}`, the file first and the row after it. Its schema is an Alembic history
(`migrations/`), its sample data is made by `seed`, and a release may have addons (`addon_*.py`) besides.
"""
