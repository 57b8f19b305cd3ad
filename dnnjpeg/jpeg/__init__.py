"""Facts of the JPEG format, in pure Python."""
