"""Pictures in shards, tar or Parquet, on this disk or behind a URL."""
