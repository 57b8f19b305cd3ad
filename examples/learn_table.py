"""Learn a table for a network from a folder of pictures, and look at it. Takes minutes.

python examples/learn_table.py torchvision:resnet18 pictures mine.json
"""

import subprocess
import sys

from dnnjpeg import load_table

spec, pictures, target = sys.argv[1:]
command = ["learn-table", "--network", spec, "--data", pictures, "-o", target]
# for a quick try: leave these out for real use
quick = ["--method", "sensitivity", "--qualities", "20,50,75", "--subsampling", "4:2:0", "--limit", "20"]
subprocess.run([sys.executable, "-m", "dnnjpeg", *command, *quick], check=True)
for point in load_table(target).points:
    print(f"quality {point.quality:g}, {point.subsampling}: luma steps {point.luma[:8]} ...")
