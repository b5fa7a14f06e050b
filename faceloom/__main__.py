"""``python -m faceloom``: the same as the command ``faceloom``."""

from faceloom.cli import main

main()
