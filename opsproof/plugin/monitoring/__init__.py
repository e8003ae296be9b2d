"""What runs came to, for those who watch: tallies, metrics, pings, one line for Nagios."""
