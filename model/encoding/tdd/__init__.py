"""Trajectory-pooled deep-convolutional descriptors: maps of a network along improved dense trajectories."""
