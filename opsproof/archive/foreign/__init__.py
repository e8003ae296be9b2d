"""Backups that others made: recognised by what they hold, and read with distrust."""
