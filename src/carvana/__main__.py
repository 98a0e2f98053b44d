"""`python -m carvana`, the same as `carvana`."""

import sys

from carvana.cli import main

sys.exit(main())
