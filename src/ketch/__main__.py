"""`python -m ketch` is the `ketch` command."""

import sys

from .cli.main import main

sys.exit(main())
