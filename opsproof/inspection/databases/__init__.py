"""A database and its server as they stand: what `checks/test_database.py` looks at."""
