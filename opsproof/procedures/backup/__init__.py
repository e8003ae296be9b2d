"""Back up one target, and what that is made of."""
