"""Reading a backup, and believing nothing of it before it was checked."""
