"""Quantization tables: operating points, files, installed tables."""
