"""The command line: `python -m aslp_jax` is `aslp-jax`."""

import sys

from aslp_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
