"""Split lists: read in the forms in which they are published, matched with the videos of a data root, or made from folders or a seed."""
