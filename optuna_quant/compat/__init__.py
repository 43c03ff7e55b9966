"""Reading what users of other tools have."""
