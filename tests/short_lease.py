"""The program with leases that end in seconds: `python -m tests.short_lease export …`."""

import sys

from exporter.cli import main
from tests.stopped import shorten_leases

if __name__ == "__main__":
    shorten_leases(float(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
