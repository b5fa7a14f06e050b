"""What the process of :mod:`animation.apart` does in its tests; a module of its own, since that process imports it."""

import os
import time

from faceloom.errors import UserError


def obedient(greeting):
    """Does what it is asked for."""

    def work(ask, report):
        if ask == "die":
            os._exit(9)
        if ask == "hang":
            time.sleep(60)
        if ask == "refuse":
            raise UserError("x.png: no face is found")
        if ask == "break":
            raise ValueError("the inside of the server")
        if ask == "count":
            for i in range(3):
                report("counting", i, 3)
        return f"{greeting} {ask} of {os.getpid()}"

    return work


def impossible():
    raise UserError("a model is missing")
