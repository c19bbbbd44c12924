"""Folders of numbered pictures as videos."""
