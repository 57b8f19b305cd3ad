"""Comparing tables and codecs on real files, by bytes and by what networks read."""
