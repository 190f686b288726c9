"""``python -m nas_core.program CERTIFICATE.json``: verify written certificates; see ``checker``."""

import sys

from nas_core.program.checker import main

sys.exit(main(sys.argv[1:]))
