"""One mesh of devices: where arrays are sharded, and the sharded counterparts of kernels."""
