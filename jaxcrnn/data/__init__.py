"""Data without jax: readers, the audit, width buckets, batches, rendered lines."""
