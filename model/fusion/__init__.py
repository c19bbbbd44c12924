"""Late fusion with other systems' scores."""
