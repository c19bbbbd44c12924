"""TV-L1 on an NVIDIA GPU: kernels, their compilation, the device, and the solver."""
