"""From shards to what a network sees: sampling, transforms, clips."""
