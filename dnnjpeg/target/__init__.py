"""Encode to a target: a criterion of networks, or a size."""
