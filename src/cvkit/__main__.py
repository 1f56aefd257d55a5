"""``python -m cvkit``: see :mod:`cvkit.command_line`."""

import sys

from cvkit.command_line import main

if __name__ == "__main__":  # a worker process that is spawned imports this file again
    sys.exit(main())
