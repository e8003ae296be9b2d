"""Bring what a killed run left halfway to a proven end."""
