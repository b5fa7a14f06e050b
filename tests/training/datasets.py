"""A small finished dataset whose samples can be encoded and trained on: true videos, made-up faces and flow."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from curation.ledger import Decision, write_fragment
from curation.outcome import Kept, Rejected
from curation.sample_video import SampleVideoConfig, encode_sample
from curation.sources import Clip
from landmarks.record import quantise
from shards.dataset import DatasetRecord, ManifestSummary, ledger_path
from shards.layers import layer_ledger_path
from shards.schema import (
    BASE_LAYER,
    FACE_DIM,
    FACE_TOKENS,
    FRAMES,
    HEIGHT,
    LANDMARKS,
    LATENT_FRAMES,
    LATENT_HEIGHT,
    LATENT_WIDTH,
    WIDTH,
    encode_field,
)
from shards.writer import write_layer
from tests import fetched
from tests.curation.datasets import blank_sample
from training.encode_config import EncodeConfig
from training.encode_ledger import write_fragment as write_outcomes
from training.encode_plan import layer_files, prepare
from training.encoder import SampleEncoder

BLOCKS = ((True, True), (False, False), (False, True))
"""Which clips of which block are kept: three, in two of the three parts."""
OWN_FRAMES = 45
REFERENCE_FRAME = 7
FLOW_P995 = 20.0


def clip(number: int) -> Clip:
    return Clip("test", f"{number}.mp4", f"/videos/{number}.mp4", licence="CC0-1.0")


def pictures(number: int) -> np.ndarray:
    """Coloured tiles that move, other ones for each clip; the last frames repeat, as in a short clip's sample."""
    tiles = np.random.default_rng(number).integers(0, 256, (HEIGHT // 48, WIDTH // 48, 3), np.uint8)
    still = cv2.resize(tiles, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
    return np.stack([np.roll(still, 5 * min(t, OWN_FRAMES - 1), axis=1) for t in range(FRAMES)])


def sample_of(number: int) -> dict[str, Any]:
    """The fields of a sample for the MediaPipe backend, decoded."""
    random = np.random.default_rng(number)
    points = np.repeat(random.uniform(0.4, 0.6, (1, LANDMARKS, 3)), FRAMES, axis=0)
    points[:OWN_FRAMES] += np.linspace(0.1, 0, OWN_FRAMES)[:, None, None]
    sample = {name: value for name, value in blank_sample(clip(number)).items() if not name.startswith("smirk")}
    sample["meta.json"] |= {
        "n_valid": OWN_FRAMES,
        "source_wh": [1920, 1080],
        "crop_xywh": [300.0, 0.0, 1620.0, 1080.0],
        "landmark_backend": "mediapipe",
        "reference_frame": REFERENCE_FRAME,
        "face_encoder": "patches",
        "flow": {"p995": FLOW_P995},
    }
    frames = pictures(number)
    flow = FLOW_P995 * random.uniform(0, 1.2, (LATENT_FRAMES, LATENT_HEIGHT, LATENT_WIDTH))
    flow[OWN_FRAMES // 4 + 1 :] = 0
    return sample | {
        "video.mp4": encode_sample(frames, 12, None, SampleVideoConfig(crf=30, preset="ultrafast")),
        "landmarks.u16.npy": quantise(points),
        "flow.npy": flow.astype(np.float16),
        "face.jpg": _jpeg(np.zeros((8, 8, 3), np.uint8)),
        "face_tokens.npy": random.standard_normal((FACE_TOKENS, FACE_DIM)).astype(np.float16),
        "reference.jpg": _jpeg(frames[REFERENCE_FRAME]),
    }


def write_base(root: Path, blocks: Sequence[Sequence[bool]] = BLOCKS) -> DatasetRecord:
    """A finished dataset that ``faceloom verify`` finds whole; clips are numbered through, True ones are kept."""
    root.mkdir(parents=True)
    files, numbers = [], iter(range(1000))
    for part, kept in enumerate(blocks):
        rows = [(next(numbers), keep) for keep in kept]
        samples = [(clip(n).clip_id, sample_of(n)) for n, keep in rows if keep]
        encoded = [(key, {name: encode_field(name, v) for name, v in sample.items()}) for key, sample in samples]
        files.append(write_layer(root, part, BASE_LAYER, encoded))
        decisions = [Decision(clip(n), Kept() if keep else Rejected("motion", 0.1, 1.0)) for n, keep in rows]
        write_fragment(root, part, decisions, "run")
    record = DatasetRecord(
        complete=True,
        config={"landmarks": {"backend": "mediapipe"}, "face": {"encoder": "patches"}},
        config_fingerprint="c" * 64,
        fingerprints={"video": "f" * 64},
        licences=("CC0-1.0",),
        manifest=ManifestSummary(
            sha256="m" * 64, clips=sum(map(len, blocks)), blocks=len(blocks), block_clips=len(blocks[0])
        ),
        shards=tuple(files),
        ledger=tuple(sha256(ledger_path(root, part).read_bytes()).hexdigest() for part in range(len(blocks))),
    )
    record.save(root)
    return record


def add_latents(root: Path, layer: str = "latents", config: EncodeConfig | None = None) -> Path:
    """Give the dataset at ``root`` a layer of ``config``, by default of the codec ``pixels``, as ``faceloom encode`` does.

    Skips the test where the landmarks' model is not there.
    """
    fetched.model("face_landmarker")
    plan = prepare(config or EncodeConfig(), root, layer)
    encoder = SampleEncoder(str(root), plan.config, plan.backend, plan.codec_fingerprint)
    for part, samples in plan.blocks_left():
        results = [encoder.encode(sample) for sample in samples]
        encoded = [(outcome.clip_id, fields) for outcome, fields in results if fields is not None]
        assert len(encoded) == len(samples)
        write_layer(root, part, layer, encoded)
        write_outcomes(root, layer, part, [outcome for outcome, _ in results], plan.record.run)
    ledger = tuple(sha256(layer_ledger_path(root, layer, part).read_bytes()).hexdigest() for part in plan.parts)
    plan.record.model_copy(update={"complete": True, "shards": layer_files(plan), "ledger": ledger}).save(root)
    return root


def _jpeg(image: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1])
