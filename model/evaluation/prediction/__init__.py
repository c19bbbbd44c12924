"""Trained networks at work on video files."""
