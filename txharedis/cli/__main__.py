"""`python -m txharedis.cli` is `haredis`."""

import sys

from txharedis.cli.parser import main

if __name__ == "__main__":
    sys.exit(main())
