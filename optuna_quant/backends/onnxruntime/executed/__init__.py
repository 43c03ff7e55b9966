"""What the runtime really runs, read from its optimized graph."""
