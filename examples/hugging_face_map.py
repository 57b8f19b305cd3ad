"""Re-encode the image column of a Hugging Face data set.

python examples/hugging_face_map.py pictures out.parquet
"""

import sys
from pathlib import Path

from datasets import Dataset, Features, Image

from dnnjpeg.plugins.datasets import hf_encode

features = Features({"image": Image(decode=False)})  # the files as they are, without decoding
rows = [{"bytes": path.read_bytes(), "path": path.name} for path in sorted(Path(sys.argv[1]).iterdir())]
dataset = Dataset.from_dict({"image": rows}, features=features)

dataset = dataset.map(hf_encode("universal", quality=75), batched=True, features=features)
dataset.cast_column("image", Image()).to_parquet(sys.argv[2])
