"""How other programs meet the codec: Pillow and OpenCV."""
