"""Targets side by side: workers of pytest-xdist, and what each of them does."""
