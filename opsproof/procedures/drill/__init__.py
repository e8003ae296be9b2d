"""Rehearse a restore into scratch names, timed and proven."""
