"""Scores of whole videos by trained networks, and metrics."""
