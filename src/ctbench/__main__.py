"""`python -m ctbench` is `ctbench`; so is `torchrun ... -m ctbench`, in each of the processes that it starts."""

import sys

from ctbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
