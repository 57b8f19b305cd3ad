"""Encode pictures with Ray Data, and store the files in Parquet.

python examples/ray_batches.py pictures out
"""

import sys
from pathlib import Path

import ray

from dnnjpeg.plugins.datasets import ray_encode

ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1")
source, target = (str(Path(name).absolute()) for name in sys.argv[1:])
dataset = ray.data.read_binary_files(source, include_paths=True)
dataset = dataset.map_batches(ray_encode("universal", quality=75, column="bytes"))
dataset.write_parquet(target)
