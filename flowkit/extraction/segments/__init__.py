"""Segments of videos from a list to clip files."""
