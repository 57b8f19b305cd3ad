"""What tables and codecs are worth to a network, measured on real files."""
