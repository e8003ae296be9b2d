"""A PostgreSQL server and its databases: looked at, dumped, loaded, renamed, dropped."""
