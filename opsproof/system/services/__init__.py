"""The services of an application, under systemd or supervisor."""
