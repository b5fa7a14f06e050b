"""Ours with one thread, as a process that has no core to spare would use it."""

import functools

import with_faceloom
from measure import main

if __name__ == "__main__":
    main(with_faceloom.write, functools.partial(with_faceloom.open_loader, threads=1))
