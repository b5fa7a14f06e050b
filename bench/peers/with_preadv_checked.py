"""The least a checking reader can do: bare ``preadv`` and crc32c, into the memory of the batches a loader has in flight."""

import functools

import with_preadv
from measure import main

if __name__ == "__main__":
    main(with_preadv.write, functools.partial(with_preadv.open_loader, batches_held=32, checked=True))
