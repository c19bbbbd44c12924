"""What the help pages of commands say, and how they look."""
