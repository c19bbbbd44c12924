"""The scores that trained networks give complete videos, and metrics."""
