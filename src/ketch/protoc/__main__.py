"""python -m ketch.protoc: for protoc, where the script protoc-gen-ketch is not on the PATH."""

import sys

from .plugin import main

sys.exit(main())
