"""JPEG that can be differentiated (torch)."""
