"""Compiling kernels, their cache, and their working memory."""
