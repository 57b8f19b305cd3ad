"""Pictures, data sets and results on disk."""
