"""`python -m obs.cli`."""

from __future__ import annotations

import sys

from obs.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
