"""From video files to clip files: planning, extracting one video, and running everything."""
