"""Go back: the schema, the data, or the release."""
