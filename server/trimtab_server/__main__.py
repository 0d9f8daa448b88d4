"""`python -m trimtab_server`."""

import sys

from trimtab_server.cli import main

sys.exit(main())
