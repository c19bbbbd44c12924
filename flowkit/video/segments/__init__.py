"""Segments: parts of a video that are extracted as videos."""
