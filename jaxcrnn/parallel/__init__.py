"""Device meshes: the shardings of all arrays, and the sharded counterparts of kernels."""
