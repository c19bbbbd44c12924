"""TV-L1 on the CPU: kernels that numba compiles, and the solver that runs them."""
