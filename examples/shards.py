"""Make the pictures in tar shards smaller. Run it again after an interruption: it goes on where it stood.

python examples/shards.py 'shards/*.tar' out
"""

import sys

import dnnjpeg
from dnnjpeg.jobs.tasks import FileOptions
from dnnjpeg.shards.run import ShardOptions, Shards

pattern, output = sys.argv[1:]
options = ShardOptions(FileOptions(dnnjpeg.load_table("universal"), quality=75), jobs=2)
for shard in Shards([pattern], output, options).run():
    before, after = (shard.record[name] for name in ("bytes_before", "bytes_after"))
    print(f"{shard.source}: {shard.status}, {before:,} -> {after:,} bytes")
