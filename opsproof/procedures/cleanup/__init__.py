"""Clean up: old backups, and what runs and migrations have left."""
