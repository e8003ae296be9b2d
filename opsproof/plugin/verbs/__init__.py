"""What the files in `actions/` and `checks/` ask for by name."""
