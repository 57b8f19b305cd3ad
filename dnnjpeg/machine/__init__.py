"""How kernels are compiled, and where they work."""
