"""What is computed along the trajectories of a video, and the two passes that make Fisher vectors of it."""
