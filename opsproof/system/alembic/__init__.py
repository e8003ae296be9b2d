"""Alembic in the application's own interpreter, and what its migrations say."""
