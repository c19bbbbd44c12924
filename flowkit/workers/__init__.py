"""Processes and machines that work on tasks."""
