import numpy as np

from curation.sources import Clip
from landmarks.record import quantise
from landmarks.stored import record_of
from shards.schema import FRAMES
from tests.curation.datasets import blank_sample

OWN = 40
RNG = np.random.default_rng(5)


def test_the_record_of_a_sample_has_its_own_frames_and_nothing_of_the_repeated_ones() -> None:
    points = RNG.uniform(0, 1, (FRAMES, 478, 3)).astype(np.float32)
    parameters = RNG.normal(size=(FRAMES, 61)).astype(np.float32)
    sample = blank_sample(Clip("set", "a.mp4", "/videos/a.mp4"))
    sample["meta.json"] |= {"n_valid": OWN, "source_wh": [640, 360], "found": [t != 8 for t in range(FRAMES)]}
    sample |= {"landmarks.u16.npy": quantise(points), "smirk.npy": parameters}
    record = record_of(sample)
    np.testing.assert_allclose(record.points, points[:OWN], atol=2e-5)
    assert (record.width, record.height) == (640, 360)
    assert np.flatnonzero(~record.found).tolist() == [8]
    assert record.blendshapes.dtype == np.float32
    assert record.smirk is not None
    np.testing.assert_array_equal(record.smirk.parameters, parameters[:OWN])


def test_a_sample_without_smirk_makes_a_record_without() -> None:
    sample = blank_sample(Clip("set", "a.mp4", "/videos/a.mp4"))
    sample["meta.json"] |= {"source_wh": [640, 360]}
    without = {name: value for name, value in sample.items() if not name.startswith("smirk")}
    assert record_of(without).smirk is None
