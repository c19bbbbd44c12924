"""Improved dense trajectories: flow over a pyramid, camera motion, tracking and descriptors."""
