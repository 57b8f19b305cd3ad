"""Quantization tables: points, files, what is installed."""
