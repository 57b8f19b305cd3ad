"""Write a picture with OpenCV's arguments, through dnnjpeg.

python examples/opencv_write.py photo.png photo.jpg
"""

import sys

import cv2

from dnnjpeg.plugins.opencv import imencode, imwrite

source, target = sys.argv[1:]
picture = cv2.imread(source)
imwrite(target, picture, [cv2.IMWRITE_JPEG_QUALITY, 75], model="universal")
ok, data = imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 50], model="universal")
print(f"{len(data):,} bytes at quality 50")
