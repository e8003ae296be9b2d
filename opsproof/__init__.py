"""Backup, restore, rollback and drills for PostgreSQL applications, as procedures that prove themselves."""
