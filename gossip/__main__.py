"""What does `python -m gossip` do? The same as the command `gossip`."""

import sys

from gossip.cli import main

if __name__ == "__main__":
    sys.exit(main())
