"""Whether a restore can come to its end, and whether what it made is what the backup says."""
