"""What a backup is: the bundle, its manifest, and the catalogue of a store."""
