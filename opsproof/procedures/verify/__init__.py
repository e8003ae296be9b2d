"""Verify stored backups, and say whose fault it is where they do not pass."""
