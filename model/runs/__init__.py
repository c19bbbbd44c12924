"""What a phase leaves on disk: checkpoints, its folder, events."""
