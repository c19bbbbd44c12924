"""From video files to clip files: the plan, one video, and the whole run."""
