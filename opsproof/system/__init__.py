"""What the procedures act on: each module one noun, none of which knows its neighbours."""
