from faceloom.failures import failure_lines


def failed(names: range) -> list[dict[str, str]]:
    return [{"stage": "decode", "clip": f"clip {n}", "error": "OSError", "message": "cut short"} for n in names]


def test_every_failure_is_told_with_its_reason():
    assert list(failure_lines(failed(range(20)), "clip")) == [
        f"failed in decode: clip {n}: OSError: cut short" for n in range(20)
    ]


def test_the_first_of_very_many_are_told_and_the_others_counted():
    lines = list(failure_lines(failed(range(1000)), "clip"))
    assert lines[19:] == ["failed in decode: clip 19: OSError: cut short", "and 980 more"]


def test_a_run_without_failures_says_nothing_of_them():
    assert list(failure_lines([], "clip")) == []
