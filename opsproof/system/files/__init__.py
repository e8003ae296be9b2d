"""The application's files, on this machine and on another."""
