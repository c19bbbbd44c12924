"""Videos: decoding, what lies in a folder, and names."""
