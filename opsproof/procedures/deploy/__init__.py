"""Deploy a release, with the database that belongs to it."""
