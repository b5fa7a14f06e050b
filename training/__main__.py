"""``torchrun … -m training``: the command ``faceloom train`` as one of many ranks."""

import sys

from faceloom.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
