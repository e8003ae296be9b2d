"""The backups of a store: found, chosen, judged, kept or let go."""
