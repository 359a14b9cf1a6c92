"""``python -m trimtab`` is ``trimtab``."""

import sys

from trimtab.apps.cli import main

sys.exit(main())
