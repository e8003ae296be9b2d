"""Whether there is room, in bytes and inodes, for what is about to be written."""
