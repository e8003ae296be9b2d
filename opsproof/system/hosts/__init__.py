"""Commands, pipes, tunnels and pages on a host, whatever carries them there."""
