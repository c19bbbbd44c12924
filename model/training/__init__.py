"""The training loop, the optimiser and the chain of phases."""
