"""What a schema is, and what going back in its history would cost."""
