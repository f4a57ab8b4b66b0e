"""Data sets, without jax: readers, audit, width buckets and batches."""
