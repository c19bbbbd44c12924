"""The data root: its settings, clip files, split lists, manifests and packing."""
