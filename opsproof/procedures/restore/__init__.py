"""Restore one target: built beside, proven, exchanged."""
