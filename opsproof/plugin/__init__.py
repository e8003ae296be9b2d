"""pytest's side of opsproof."""
