"""The test protocol, its results, and predictions for any video."""
