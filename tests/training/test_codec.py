import subprocess
import sys

import pytest
from pydantic import ValidationError

from tests.training.tiny import save_vae
from training.codec import CodecConfig, load_codec


def test_the_default_needs_no_model():
    codec = load_codec(CodecConfig())
    assert (codec.name, codec.moment_channels) == ("pixels", 16)


def test_the_config_reaches_the_vae(tmp_path):
    model = str(save_vae(tmp_path))
    codec = load_codec(CodecConfig(codec="vae", vae_model=model, device="cpu"))
    assert (codec.name, codec.moment_channels) == ("vae", 32)
    others = [{"dtype": "fp32"}, {"tiling": True}]
    fingerprints = {
        load_codec(CodecConfig(codec="vae", vae_model=model, device="cpu", **other)).fingerprint for other in others
    }
    assert len(fingerprints | {codec.fingerprint}) == 3


def test_an_unknown_codec_is_refused():
    with pytest.raises(ValidationError, match=r"'pixels' or 'vae'"):
        CodecConfig(codec="dct")


def test_the_configuration_and_the_pixels_codec_come_without_torch():
    code = (
        "import sys; from training.codec import CodecConfig, load_codec; load_codec(CodecConfig()); print(*sys.modules)"
    )
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "torch" not in modules
    assert "diffusers" not in modules
