"""TV-L1 optical flow: one entry point, `compute_flow`, that picks the solver by device and mode."""
