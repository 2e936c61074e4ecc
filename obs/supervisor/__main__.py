"""`python -m obs.supervisor`: see obs.supervisor.main."""

import sys

from obs.supervisor.main import main

sys.exit(main())
