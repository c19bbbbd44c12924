"""The networks, one per file, and their initial weights."""
