"""What all tests have in common."""

from hypothesis import settings

# How long an example takes depends on what else the machine does, be it only the other process of ``make test``.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
