"""Tables learned from pictures and networks. Everything in here needs torch: pip install 'dnnjpeg[learn]'."""
