"""The releases of an application on its host: laid out, sent, noted."""
