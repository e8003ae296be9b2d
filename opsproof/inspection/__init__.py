"""What a check knows: plain functions over the system that return findings or raise."""
