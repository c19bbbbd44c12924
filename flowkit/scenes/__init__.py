"""Cuts between scenes and repeated frames: found in frames as they are stored, so that every command finds the same ones."""
