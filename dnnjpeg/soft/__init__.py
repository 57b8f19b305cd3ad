"""Differentiable JPEG, in torch."""
