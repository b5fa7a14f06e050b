import os
import time

from faceloom.apart import apart


def _work(item: str) -> str:
    if item == "poison":
        os.abort()
    if item == "hangs":
        time.sleep(600)
    return item.upper()


def test_results_come_in_order_and_what_kills_its_process_costs_itself_only():
    assert list(apart(_work, ["a", "poison", "b", "c", "poison"], workers=2, deadline_s=60)) == [
        "A",
        None,
        "B",
        "C",
        None,
    ]


def test_what_hangs_is_given_up():
    assert list(apart(_work, ["hangs", "a"], workers=2, deadline_s=5)) == [None, "A"]


def test_nothing_to_do_starts_nothing():
    assert list(apart(_work, [], workers=2, deadline_s=1)) == []
