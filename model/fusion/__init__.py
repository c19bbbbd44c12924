"""Late fusion of our scores with those of other systems."""
