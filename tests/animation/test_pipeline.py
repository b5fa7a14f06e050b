"""The denoising loop against one that is written out here: steps in float64, stock models of diffusers called by hand."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from accelerate.hooks import CpuOffload
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler, CogVideoXDPMScheduler, CogVideoXTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from transformers import SiglipVisionModel

from animation.pipeline import PortraitAnimationPipeline, _noise
from animation.windows import windows
from curation.identity import siglip_pixels
from faceloom.errors import UserError
from tests.animation.exports import save_release_again
from tests.training.tiny import WEIGHTS

HEIGHT, WIDTH = 32, 48
STEPS = 4  # the third is the first of DPM-Solver++ that looks back


def picture(seed: int, *shape: int) -> np.ndarray:
    """Blurred noise uint8, of full contrast."""
    noise = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def drawings_of(frames: int) -> np.ndarray:
    """A white square that moves to and fro on black, [T, 32, 48, 3]."""
    drawn = np.zeros((frames, HEIGHT, WIDTH, 3), np.uint8)
    for t in range(frames):
        x = round(20 + 15 * np.sin(t / 8))
        drawn[t, 12:20, x : x + 8] = 255
    return drawn


def inputs(frames: int) -> dict[str, Any]:
    return {
        "canvas": picture(0, HEIGHT, WIDTH, 3),
        "face": picture(1, 512, 512, 3),
        "drawings": drawings_of(frames),
        "reference_drawing": picture(2, HEIGHT, WIDTH, 3),
    }


@pytest.fixture(scope="module")
def pipeline(release: Path) -> PortraitAnimationPipeline:
    made = PortraitAnimationPipeline.from_pretrained(release, device="cpu")
    made.set_progress_bar_config(disable=True)
    return made


def frames_of(pipeline: PortraitAnimationPipeline, frames: int, **changes: Any) -> np.ndarray:
    return np.stack(list(pipeline(**inputs(frames) | {"steps": STEPS} | changes)))


# --- the reference ---------------------------------------------------------------------------------------------------


def alphas_cumprod() -> np.ndarray:
    """Zero-terminal-SNR schedule of CogVideoX-5B in float64, by Algorithm 1 of arXiv 2305.08891."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    root = np.sqrt(np.cumprod(1 - betas))
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


def ddim(x: np.ndarray, v: np.ndarray, now: int, then: int) -> np.ndarray:
    a, b = alphas_cumprod()[now], alphas_cumprod()[then] if then >= 0 else 1.0
    x0, noise = np.sqrt(a) * x - np.sqrt(1 - a) * v, np.sqrt(1 - a) * x + np.sqrt(a) * v
    return np.sqrt(b) * x0 + np.sqrt(1 - b) * noise


class Dpm:
    """DPM-Solver++ (2M, SDE), data prediction (Lu et al., 2022, arXiv 2211.01095, App. A), noise drawn as by diffusers."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.before: tuple[float, np.ndarray] | None = None

    def __call__(self, x: np.ndarray, v: np.ndarray, now: int, then: int) -> np.ndarray:
        with np.errstate(divide="ignore"):
            a, b = alphas_cumprod()[now], alphas_cumprod()[then] if then >= 0 else 1.0
            lam, lam_then = 0.5 * np.log(a / (1 - a)), 0.5 * np.log(b / (1 - b)) if b < 1 else np.inf
        x0 = np.sqrt(a) * x - np.sqrt(1 - a) * v
        h = lam_then - lam
        noise = torch.randn(x.shape, generator=self.generator).numpy()
        data = x0
        if self.before is not None and then >= 0:
            lam_before, x0_before = self.before
            ratio = (lam - lam_before) / h
            data = x0 + (x0 - x0_before) / (2 * ratio)
            noise = torch.randn(x.shape, generator=self.generator).numpy()  # diffusers throws the first one away
        self.before = (lam, x0)
        shrunk = np.sqrt((1 - b) / (1 - a)) * np.exp(-h) * x
        return shrunk - np.expm1(-2 * h) * np.sqrt(b) * data + np.sqrt(1 - b) * np.sqrt(1 - np.exp(-2 * h)) * noise


class Reference:
    """SkyReels-A1's inference on the files of a release, with stock models of diffusers and nothing of ours."""

    def __init__(self, folder: Path) -> None:
        weights = load_file(folder / "transformer" / WEIGHTS)
        self.projector = {
            name.rpartition("pose_proj.")[2]: weights.pop(name) for name in list(weights) if "pose_proj" in name
        }
        config = CogVideoXTransformer3DModel.load_config(folder / "transformer")
        self.transformer = CogVideoXTransformer3DModel.from_config(config, max_text_seq_length=729).float().eval()
        self.transformer.load_state_dict(weights)
        self.vae = AutoencoderKLCogVideoX.from_pretrained(folder / "vae").eval()
        self.guider = AutoencoderKLCogVideoX.from_pretrained(folder / "pose_guider").eval()
        self.siglip = SiglipVisionModel.from_pretrained(next(folder.glob("siglip*"))).eval()

    def project(self, tokens: Tensor) -> Tensor:
        hidden = functional.linear(tokens, self.projector["0.weight"], self.projector["0.bias"])
        return functional.linear(functional.silu(hidden), self.projector["2.weight"], self.projector["2.bias"])

    def velocity(self, x: Tensor, landmarks: Tensor, image: Tensor, tokens: Tensor, timestep: int) -> Tensor:
        rotary = get_3d_rotary_pos_embed(16, ((0, 0), (2, 3)), (2, 3), 13)
        stacked = torch.cat([x, landmarks, image], dim=2)
        return self.transformer(
            stacked, self.project(tokens), torch.tensor([timestep]), image_rotary_emb=rotary, return_dict=False
        )[0]

    @torch.no_grad()
    def __call__(self, control: np.ndarray, guidance: float, seed: int, dpm: bool) -> tuple[np.ndarray, np.ndarray]:
        """Latents float64 [1, 13, 16, 4, 6] and pictures uint8 [49, 32, 48, 3] of the first window."""
        given = inputs(1)
        generator = torch.Generator().manual_seed(seed)
        canvas = torch.from_numpy(given["canvas"]).permute(2, 0, 1)[None, :, None] / 127.5 - 1
        image = 0.7 * self.vae.encode(canvas).latent_dist.sample(generator).transpose(1, 2)
        image = torch.cat([image, torch.zeros(1, 12, 16, 4, 6)], dim=1)
        drawn = torch.from_numpy(control).permute(3, 0, 1, 2)[None] / 127.5 - 1
        landmarks = 0.7 * self.guider.encode(drawn).latent_dist.mode().transpose(1, 2)
        pixels = torch.from_numpy(siglip_pixels(given["face"], 378))[None]
        tokens = self.siglip(pixel_values=pixels).last_hidden_state.half().float()
        x = torch.randn(1, 13, 16, 4, 6, generator=generator).double().numpy()
        step = Dpm(generator) if dpm else ddim
        for now in range(999, -1, -1000 // STEPS):
            noisy = torch.from_numpy(x).float()
            face = self.velocity(noisy, landmarks, image, tokens, now).double().numpy()
            null = self.velocity(noisy, landmarks, image, torch.zeros_like(tokens), now).double().numpy()
            x = step(x, null + guidance * (face - null), now, now - 1000 // STEPS)
        decoded = self.vae.decode(torch.from_numpy(x).float().transpose(1, 2) / 0.7).sample[0]
        return x, ((decoded + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 3, 0).numpy()


@pytest.fixture(scope="module")
def reference(release: Path) -> Reference:
    return Reference(release)


def latents_and_frames(
    pipeline: PortraitAnimationPipeline, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The latents of the first window before they are decoded, and the frames of all."""
    seen: list[Tensor] = []
    decode = PortraitAnimationPipeline._decode
    monkeypatch.setattr(
        PortraitAnimationPipeline, "_decode", lambda self, latents: seen.append(latents) or decode(self, latents)
    )
    frames = frames_of(pipeline, 48, **changes)
    return seen[0].double().numpy(), frames


def control_of_48() -> np.ndarray:
    given = inputs(48)
    return np.concatenate([given["reference_drawing"][None], given["drawings"]])


@pytest.mark.parametrize(
    ("kind", "guidance"),
    [(CogVideoXDDIMScheduler, 1.0), (CogVideoXDDIMScheduler, 3.0), (CogVideoXDPMScheduler, 3.0)],
)
def test_the_loop_is_the_releases_step_by_step(pipeline, reference, kind, guidance, monkeypatch):
    monkeypatch.setattr(pipeline, "scheduler", kind.from_config(pipeline.scheduler.config))
    latents, frames = latents_and_frames(pipeline, monkeypatch, guidance=guidance, seed=3)
    expected, pictures = reference(control_of_48(), guidance, seed=3, dpm=kind is CogVideoXDPMScheduler)
    np.testing.assert_allclose(latents, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert np.abs(frames.astype(int) - pictures[1:]).max() <= 1


def test_release_and_exports_of_the_same_weights_give_the_same_frames(pipeline, release, tmp_path):
    cheap: dict[str, Any] = {"steps": 1, "guidance": 1.0}
    expected = frames_of(pipeline, 3, **cheap)
    assert expected.std() > 5
    for layout in ("release", "diffusers"):
        folder = save_release_again(tmp_path / layout, release, layout)
        again = PortraitAnimationPipeline.from_pretrained(
            folder, device="cpu", siglip_model=str(next(release.glob("siglip*")))
        )
        again.set_progress_bar_config(disable=True)
        assert np.array_equal(frames_of(again, 3, **cheap), expected)


@pytest.mark.parametrize("layout", ["contiguous49", "ref1+48"])
@pytest.mark.parametrize("frames", [1, 50])
def test_as_many_frames_come_out_as_drawings_go_in(pipeline, layout, frames, monkeypatch):
    monkeypatch.setattr(pipeline, "trained_on", replace(pipeline.trained_on, layout=layout))
    told: list[tuple[int, int]] = []
    made = frames_of(pipeline, frames, steps=1, guidance=1.0, on_step=lambda done, of: told.append((done, of)))
    assert made.shape == (frames, HEIGHT, WIDTH, 3)
    assert told == ([(1, 1)] if frames == 1 else [(1, 2), (2, 2)])


def test_a_seed_gives_its_bits_again_and_another_one_others(pipeline):
    first, again, other = (frames_of(pipeline, 2, steps=1, guidance=1.0, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_later_window_has_its_shared_latents_noise_from_the_one_before():
    first, second = windows(60, "ref1+48", 8)
    generator = torch.Generator().manual_seed(0)
    before = _noise(None, first, (13, 16, 4, 6), generator)
    after = _noise(before, second, (13, 16, 4, 6), generator)
    assert torch.equal(after[:, 1:3], before[:, -2:])
    fresh = [latent for latent in after.unbind(1) if not any(torch.equal(latent, each) for each in before.unbind(1))]
    assert len(fresh) == 11


def test_pictures_that_do_not_fit_are_refused_before_anything_is_computed(pipeline):
    wrong = {
        "canvas": (
            np.zeros((480, 720, 3), np.uint8),
            r"canvas must be uint8 \[32, 48, 3\], and is uint8 \[480, 720, 3\]",
        ),
        "face": (np.zeros((512, 512, 3), np.float32), "face must be uint8"),
        "drawings": (np.zeros((0, 32, 48, 3), np.uint8), "no drawing to animate by"),
        "reference_drawing": (None, "give its reference_drawing"),
        "steps": (7, "steps must divide 1000, 7 does not; take 10, 20 or 50"),
        "overlap": (40, "share 0 to 21 frames"),
    }
    for name, (value, reason) in wrong.items():
        with pytest.raises(UserError, match=reason):
            pipeline(**inputs(1) | {name: value})


def test_moving_offloading_and_tiling_reach_the_right_parts(release, monkeypatch):
    own = PortraitAnimationPipeline.from_pretrained(release, device="cpu")
    parts = {name: part for name, part in own.components.items() if isinstance(part, torch.nn.Module)}
    assert set(parts) == {"transformer", "face_projector", "guider", "vae", "image_encoder"}
    own.to(torch.bfloat16)
    assert {part.dtype for part in parts.values()} == {torch.bfloat16}
    own.to(torch.float32)
    assert own.device == torch.device("cpu")
    own.enable_vae_tiling()
    own.enable_vae_slicing()
    assert (own.vae.use_tiling, own.vae.use_slicing) == (True, True)

    # accelerate's hooks also take the CPU for a device to bring parts to.
    brought = []
    names = {id(part): name for name, part in parts.items()}
    fetch = CpuOffload.pre_forward

    def remember(self: CpuOffload, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        brought.append(names[id(module)])
        return fetch(self, module, *args, **kwargs)

    monkeypatch.setattr(CpuOffload, "pre_forward", remember)
    own.enable_model_cpu_offload(device="cpu")
    own.set_progress_bar_config(disable=True)
    assert len(frames_of(own, 1, steps=1, guidance=1.0)) == 1
    assert list(dict.fromkeys(brought)) == ["vae", "image_encoder", "guider", "face_projector", "transformer"]
    assert brought[-1] == "vae"


@pytest.mark.parametrize("layout", ["contiguous49", "ref1+48"])
def test_seams_move_no_more_than_the_inside_of_windows(pipeline, layout, monkeypatch):
    monkeypatch.setattr(pipeline, "trained_on", replace(pipeline.trained_on, layout=layout))

    def seams_over_inside(overlap: int) -> float:
        """Mean |frame t + 1 − frame t| where two windows meet, over its median inside them."""
        made = frames_of(pipeline, 90, steps=1, guidance=1.0, overlap=overlap).astype(np.float32)
        moved = np.abs(np.diff(made, axis=0)).mean(axis=(1, 2, 3))
        seam = np.zeros(len(moved), bool)
        for before, after in itertools.pairwise(windows(90, layout, overlap)):
            seam[after.begin - 1 : before.end] = True
        return float(moved[seam].mean() / np.median(moved[~seam]))

    assert seams_over_inside(8) <= 1.0
    assert seams_over_inside(0) > 1.2  # the statistic sees a cut
