"""Why a test is skipped."""

MISSING = "is not installed: pip install 'dnnjpeg[integrations]'"
TORCH = "is not installed: pip install torch torchvision litdata"
MOSAICML = "mosaicml-streaming is not installed: it wants an older transformers than datasets does"
