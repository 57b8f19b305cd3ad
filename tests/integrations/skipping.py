"""Why a test is skipped."""

MISSING = "is not installed: pip install 'dnnjpeg[integrations]'"
