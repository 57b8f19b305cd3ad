"""Compare tables and codecs on real files: their bytes, and what networks read in them."""
