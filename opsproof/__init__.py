"""Backup, restore, rollback, deploys and drills for PostgreSQL applications, as procedures that prove themselves."""
