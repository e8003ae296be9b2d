"""Encryption by age, and signatures by Ed25519."""
