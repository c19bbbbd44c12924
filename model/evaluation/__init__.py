"""The test protocol, its results, and prediction on any video."""
