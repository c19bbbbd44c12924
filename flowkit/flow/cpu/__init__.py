"""TV-L1 on the CPU: numba kernels, and the solver that runs them."""
