"""Variants of ST-ResNet, trained and tested side by side."""
