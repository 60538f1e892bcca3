"""The program with leases that end in seconds: `python -m tests.support.short_lease export …`."""

import sys

from exporter.cli.main import main
from tests.support.stopped import shorten_leases

if __name__ == "__main__":
    shorten_leases(float(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
