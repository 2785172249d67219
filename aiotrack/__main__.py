"""``python -m aiotrack``: the command line."""

from __future__ import annotations

import sys

from aiotrack.cli import main

if __name__ == "__main__":
    sys.exit(main())
