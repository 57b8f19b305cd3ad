"""Why a test is skipped."""

MISSING = "is not installed: pip install 'dnnjpeg[integrations]'"
MOSAICML = "mosaicml-streaming is not installed: it wants an older transformers than datasets does"
