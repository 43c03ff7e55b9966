"""Beginning a search from an earlier study."""
