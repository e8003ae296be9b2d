"""Taking a backup: from a snapshot to a bundle, as a stream."""
