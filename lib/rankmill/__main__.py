"""`python -m rankmill`, the same as `rankmill`."""

import sys

from rankmill.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
