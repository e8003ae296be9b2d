"""What people read: rendered from values and from the journal."""
