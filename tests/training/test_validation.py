from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from shards.video import decode_video
from tests.training.datasets import add_latents, write_base
from tests.training.ranks import run_ranks
from tests.training.test_sampling import SCHEDULE, Oracle, alphas_cumprod
from training.codec import CodecConfig
from training.data import HeldOut
from training.data_config import DataConfig, ReferenceConfig, WeightConfig
from training.encode_config import EncodeConfig
from training.parallel import World, finish, parallelize, start
from training.parallel_config import ParallelConfig
from training.pixels import PixelsCodec
from training.prepared import Prepared, Recipe
from training.randomness import Shapes, draw_held_out
from training.validation import Validation
from training.validation_config import ValidationConfig

ALONE = World(rank=0, world=1, local_rank=0, device=torch.device("cpu"))
SHAPE = (3, 16, 4, 6)
TIMESTEPS = (100, 900)
SOME = slice(None, None, 12)  # frames
PIXELS = Recipe(
    DataConfig(face_tokens="patches"), CodecConfig(codec="pixels"), ReferenceConfig(), WeightConfig(), seed=5
)


class Clips:
    """Made-up held-out clips in memory."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def prepared(self, numbers: list[int], timestep: int) -> Prepared:
        (number,) = numbers
        random = torch.Generator().manual_seed(number)
        frames, channels, *cells = SHAPE
        return Prepared(
            clip_ids=(f"clip {number}",),
            video=torch.randn(1, channels, frames, *cells, generator=random).bfloat16(),
            reference=torch.randn(1, channels, 1, *cells, generator=random).bfloat16(),
            reference_pixels=None,
            landmarks=torch.randn(1, channels, frames, *cells, generator=random).bfloat16(),
            renders=None,
            face_tokens=torch.randn(1, 729, 8, generator=random).half(),
            weight=1 + torch.rand(1, frames, *cells, generator=random),
            draws=draw_held_out(7, [f"clip {number}"], timestep, Shapes(SHAPE, posterior=False)),
            scale=0.5,
            mean_weight=1.5,
            above_1=1.0,
        )


class Follower(nn.Module):
    """Its answer depends on all that it is given, and on one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = nn.Module()
        self.transformer.transformer_blocks = nn.ModuleList()
        self.factor = nn.Parameter(torch.tensor([0.25, 0.25]))

    def forward(
        self,
        noisy: Tensor,
        timestep: Tensor,
        reference: Tensor,
        face_tokens: Tensor,
        landmarks: Tensor,
        drop_landmarks: Tensor,
    ) -> Tensor:
        assert not drop_landmarks.any()
        return self.factor[0] * (noisy + landmarks) + reference + face_tokens.mean((1, 2)).view(-1, 1, 1, 1, 1)


def validation(clips: Any, out: Path, world: World = ALONE, **config: Any) -> Validation:
    return Validation(ValidationConfig(**{"timesteps": TIMESTEPS} | config), clips, SCHEDULE, world, torch.float32, out)


def losses(clips: int, out: Path) -> dict[str, float]:
    world = start(ParallelConfig())
    try:
        return validation(Clips(clips), out, world).losses(Follower())
    finally:
        finish()


def expected(number: int, timestep: int, landmarks_of: int, face_of: int) -> float:
    """The loss of one clip in float64, from the formulas."""
    own, moving, faced = (Clips(9).prepared([n], timestep) for n in (number, landmarks_of, face_of))
    alpha = alphas_cumprod()[timestep]
    noise = own.draws.noise.double()
    x0 = 0.5 * own.video.double().transpose(1, 2)
    noisy = alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise
    reference = torch.zeros_like(x0)
    assert own.reference is not None
    assert moving.landmarks is not None
    reference[:, :1] = 0.5 * own.reference.double().transpose(1, 2)
    landmarks = 0.5 * moving.landmarks.double().transpose(1, 2)
    answer = 0.25 * (noisy + landmarks) + reference + faced.face_tokens.double().mean()
    velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * x0
    return float(((answer - velocity).square().mean(2) * own.weight).mean())


def mean(values: list[float]) -> Any:
    return pytest.approx(sum(values) / len(values), rel=1e-5)


def test_losses_are_the_means_over_clips_and_timesteps_also_with_the_inputs_of_the_next_clip(tmp_path: Path) -> None:
    found = losses(3, tmp_path)
    pairs = [(clip, t) for clip in range(3) for t in TIMESTEPS]
    assert found == {
        "held_out": mean([expected(i, t, i, i) for i, t in pairs]),
        "held_out/t0100": mean([expected(i, 100, i, i) for i in range(3)]),
        "held_out/t0900": mean([expected(i, 900, i, i) for i in range(3)]),
        "held_out_other_landmarks": mean([expected(i, t, (i + 1) % 3, i) for i, t in pairs]),
        "held_out_other_face": mean([expected(i, t, i, (i + 1) % 3) for i, t in pairs]),
    }


def test_one_clip_has_no_other_to_take_inputs_from(tmp_path: Path) -> None:
    assert list(losses(1, tmp_path)) == ["held_out", "held_out/t0100", "held_out/t0900"]


@pytest.mark.parametrize("world", [2, 4])
def test_the_number_of_ranks_has_no_part_in_the_losses(tmp_path: Path, world: int) -> None:
    alone = losses(3, tmp_path)
    assert run_ranks(tmp_path, world, losses, 3, tmp_path) == [alone] * world


def spread(out: Path) -> dict[str, float]:
    """On a model that FSDP has sharded; three clips, two ranks."""
    world = start(ParallelConfig())
    try:
        plain = ParallelConfig(activation_checkpointing=False)
        model = parallelize(Follower(), plain, "fsdp", world, torch.float32)
        found = validation(Clips(3), out, world).losses(model)
        # Were the gathered parameters still in place, a checkpoint would save those.
        assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
        return found
    finally:
        finish()


def test_ranks_of_a_sharded_model_call_it_equally_often_and_leave_it_sharded(tmp_path: Path) -> None:
    alone = losses(3, tmp_path)
    for found in run_ranks(tmp_path, 2, spread, tmp_path):
        assert found == pytest.approx(alone, rel=1e-6)


def test_validation_takes_nothing_from_trainings_random_numbers_and_repeats_itself(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    first = losses(2, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert losses(2, tmp_path) == first


def test_the_model_goes_on_in_the_mode_it_was_in(tmp_path: Path) -> None:
    world = start(ParallelConfig())
    seen: list[tuple[bool, bool]] = []
    model = Follower()
    model.register_forward_hook(lambda module, _a, _o: seen.append((module.training, torch.is_grad_enabled())))
    try:
        for mode in (True, False):
            validation(Clips(1), tmp_path, world).losses(model.train(mode))
            assert model.training is mode
    finally:
        finish()
    assert set(seen) == {(False, False)}


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "held-out"
    write_base(root, blocks=((True,),))
    return add_latents(root, config=EncodeConfig(codec=PIXELS.codec))


class Knowing(nn.Module):
    """Leads to the latents of a clip; what the face says is ignored."""

    def __init__(self, x0: Tensor) -> None:
        super().__init__()
        self.oracle = Oracle(x0)

    def forward(self, *arguments: Tensor, **motion: Tensor) -> Tensor:
        (landmarks,) = motion.values()
        return self.oracle(*arguments, landmarks=landmarks)


@pytest.mark.parametrize("landmarks", ["cached", "rendered"])
def test_videos_show_reference_landmarks_truth_and_what_was_generated(
    held_out: Path, tmp_path: Path, landmarks: Any
) -> None:
    clips = HeldOut(held_out, Recipe(**vars(PIXELS) | {"landmarks": landmarks}))
    prepared = clips.prepared([0], 0)
    model = Knowing(prepared.video.transpose(1, 2).float())
    (path,) = validation(clips, tmp_path, videos=3, video_steps=2).videos(model, step=40)
    assert path == tmp_path / "validation" / "step-00000040" / f"{prepared.clip_ids[0]}.mp4"

    frames = decode_video(path.read_bytes())
    assert frames.shape == (49, 32 + 480, 4 * 720, 3)
    shown = np.split(frames[SOME, 32:].astype(float), 4, axis=2)
    drawn = prepared.renders[0].numpy() if prepared.renders is not None else None
    if prepared.landmarks is not None:
        drawn = PixelsCodec().decode_landmarks(prepared.landmarks[0].float().numpy())
    truth = clips.frames(0)
    wanted = [
        np.broadcast_to(clips.reference(0), truth.shape),
        drawn,
        truth,
        PixelsCodec().decode(prepared.video[0].float().numpy()),
    ]
    for panel, picture in zip(shown, wanted, strict=True):
        assert np.abs(panel - picture[SOME]).mean() < 4  # grey levels; the video is compressed


def test_shrunk_latents_are_shown_at_full_size(held_out: Path, tmp_path: Path) -> None:
    clips = HeldOut(held_out, Recipe(**vars(PIXELS) | {"data": DataConfig(face_tokens="patches", shrink=3)}))
    model = Knowing(clips.prepared([0], 0).video.transpose(1, 2).float())
    (path,) = validation(clips, tmp_path, videos=1, video_steps=1).videos(model, step=1)
    frames = decode_video(path.read_bytes())
    assert frames.shape == (49, 32 + 480, 4 * 720, 3)
    truth, generated = np.split(frames[SOME, 32:].astype(float), 4, axis=2)[2:]
    assert np.abs(truth - generated).mean() < np.abs(truth - truth[::-1]).mean()


def test_timesteps_and_steps_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="different numbers from 0 to 999"):
        ValidationConfig(timesteps=(100, 1000))
    with pytest.raises(ValueError, match="divisor of 1000"):
        ValidationConfig(video_steps=30)
