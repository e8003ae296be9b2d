"""What restore, rollback and deploy share: the outage in which something changes hands, and the way back from it."""
