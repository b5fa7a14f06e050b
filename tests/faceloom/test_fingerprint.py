import hashlib
import subprocess
import sys

import pytest

from faceloom.fingerprint import fingerprint


def test_it_is_the_sha256_of_canonical_json():
    canonical = '{"model":"raft","options":{"scale":0.5,"steps":[1,2]},"über":null}'
    expected = hashlib.sha256(canonical.encode()).hexdigest()
    assert fingerprint(über=None, options={"steps": (1, 2), "scale": 0.5}, model="raft") == expected


def test_the_order_of_parts_does_not_matter_and_any_value_does():
    assert fingerprint(a=1, b={"x": 1, "y": 2}) == fingerprint(b={"y": 2, "x": 1}, a=1)
    assert fingerprint(a=1, b=2) != fingerprint(a=2, b=1)
    assert fingerprint(a=0.1 + 0.2) != fingerprint(a=0.3)


def test_it_is_the_same_in_another_process():
    code = "from faceloom.fingerprint import fingerprint; print(fingerprint(scale=0.1, name='raft'))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == fingerprint(scale=0.1, name="raft")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_without_a_canonical_form_are_refused(value):
    with pytest.raises(ValueError, match="JSON"):
        fingerprint(scale=value)


@pytest.mark.parametrize("value", [{1: "a"}, [{2: "b"}], b"bytes", {"a", "set"}, object()])
def test_what_is_no_json_is_refused(value):
    with pytest.raises(TypeError):
        fingerprint(part=value)
