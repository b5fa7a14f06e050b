"""The pipeline: a portrait, its aligned face and drawn landmarks to frames (SkyReels-A1 §3), in the manner of diffusers."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel, DiffusionPipeline
from torch import Tensor
from torch.nn import functional

from animation.checkpoint import (
    RELEASE,
    TrainedOn,
    check_steps,
    find_checkpoint,
    load_image_encoder,
    load_model,
    load_picture_vae,
)
from animation.windows import MOST_OVERLAP, Window, joined, window_drawings, windows
from curation.identity import PatchTokens, siglip_pixels
from faceloom.device import Device, repeatable_inference, torch_device
from faceloom.errors import UserError
from shards.schema import FACE_SIZE
from training.decoding import whole_frames
from training.encode_config import Layout
from training.face_projector import FaceProjector
from training.guider import LandmarkGuider, PixelsGuider, pixel_latents
from training.latents import CELL
from training.model import PortraitModel
from training.pixels import PixelsCodec
from training.sampling import load_scheduler, sample
from training.shrink import shrunk
from training.vae import to_frames

Frames = Sequence[np.ndarray] | np.ndarray
OnStep = Callable[[int, int], None]


class PortraitAnimationPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Animates a portrait by landmarks that were drawn on it.

    Its parts are modules of the pipeline, so that ``to``, ``enable_model_cpu_offload`` and ``set_progress_bar_config`` are
    those of diffusers. ``vae`` is ``None`` for the codec ``pixels``, ``image_encoder`` (SigLIP) for face tokens without a
    network. ``scheduler`` may be set to another ``CogVideoXDDIMScheduler`` or ``CogVideoXDPMScheduler``.
    """

    model_cpu_offload_seq = "image_encoder->face_projector->guider->transformer->vae"

    def __init__(
        self,
        transformer: CogVideoXTransformer3DModel,
        face_projector: FaceProjector,
        guider: LandmarkGuider | PixelsGuider,
        scheduler: Any,
        vae: AutoencoderKLCogVideoX | None,
        image_encoder: Any,
        trained_on: TrainedOn = RELEASE,
    ) -> None:
        super().__init__()
        self.register_modules(
            transformer=transformer,
            face_projector=face_projector,
            guider=guider,
            scheduler=scheduler,
            vae=vae,
            image_encoder=image_encoder,
        )
        self.trained_on = trained_on

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | Path,
        *,
        device: Device = "auto",
        dtype: torch.dtype | None = None,
        siglip_model: str | None = None,
    ) -> Self:
        """The pipeline of ``checkpoint``: SkyReels-A1's release, or what ``faceloom export`` wrote in either layout.

        ``dtype`` is what transformer, projector, guider and VAE compute in: by default bfloat16 on a GPU and float32 on the
        CPU. SigLIP stays in float32, in which curation runs it. ``siglip_model`` is needed where no folder ``siglip*`` lies
        beside the other parts. Raises :class:`UserError` that says what is missing and where to get it.
        """
        target = torch_device(device, "device")
        if dtype is None:
            dtype = torch.bfloat16 if target.type == "cuda" else torch.float32
        found = find_checkpoint(checkpoint, siglip_model)
        model = load_model(found, dtype)
        assert model.guider is not None
        pipeline = cls(
            transformer=model.transformer,
            face_projector=model.face,
            guider=model.guider,
            scheduler=load_scheduler(found.scheduler),
            vae=load_picture_vae(found, dtype),
            image_encoder=load_image_encoder(found),
            trained_on=found.trained_on,
        )
        return pipeline.to(target)  # type: ignore[no-any-return]

    @property
    def layout(self) -> Layout:
        """Which pictures its windows are made of."""
        return self.trained_on.layout

    @property
    def style(self) -> str:
        """What the driver's landmarks are to be drawn in (:mod:`landmarks.drawing`)."""
        return self.trained_on.style

    @property
    def fps(self) -> int:
        """Frames a second."""
        return self.trained_on.fps

    @property
    def height(self) -> int:
        """Of canvas, drawings and frames, in px; 480 for the paper's model."""
        return int(self.transformer.config.sample_height) * CELL * self.trained_on.shrink

    @property
    def width(self) -> int:
        """Of canvas, drawings and frames, in px; 720 for the paper's model."""
        return int(self.transformer.config.sample_width) * CELL * self.trained_on.shrink

    def enable_vae_tiling(self) -> None:
        """Let the VAE encode and decode overlapping tiles, for less memory; without a VAE, nothing."""
        if self.vae is not None:
            self.vae.enable_tiling()

    def enable_vae_slicing(self) -> None:
        """Let the VAE take videos of a batch one by one; without a VAE, nothing."""
        if self.vae is not None:
            self.vae.enable_slicing()

    def __call__(
        self,
        canvas: np.ndarray,
        face: np.ndarray,
        drawings: Frames,
        reference_drawing: np.ndarray | None = None,
        *,
        steps: int = 10,
        guidance: float = 3.0,
        seed: int = 0,
        overlap: int = 8,
        on_step: OnStep | None = None,
    ) -> Iterator[np.ndarray]:
        """One frame uint8 [H, W, 3] for each of ``drawings``, in order; computed a window at a time, as they are taken.

        - ``canvas`` uint8 [H, W, 3]: the portrait in the model's frame, ``height`` × ``width``;
        - ``face`` uint8 [512, 512, 3]: its face, aligned (:func:`curation.identity.align_face`);
        - ``drawings`` uint8 [T, H, W, 3], or what gives such when it is sliced: the driver's landmarks on the portrait in
          that frame, in ``style``, at ``fps``;
        - ``reference_drawing`` uint8 [H, W, 3]: the portrait's own (style ``a1_2d``); for the layout ``ref1+48``.

        ``steps`` of the scheduler, with ``guidance`` of the face (:func:`training.sampling.sample`). Equal arguments and an
        equal ``seed`` give equal bits on one machine; noise is drawn on the CPU. Windows share ``overlap`` frames or up to
        three more (:mod:`animation.windows`). ``on_step`` is given the number of steps done and that of all.

        Raises :class:`UserError` at once for pictures that do not fit the model, and for steps or an overlap that cannot be.
        """
        self._check_pictures(canvas, face, drawings, reference_drawing)
        check_steps(steps, self.scheduler.config)
        if not 0 <= overlap <= MOST_OVERLAP:
            raise UserError(f"windows may share 0 to {MOST_OVERLAP} frames (overlap), not {overlap}")
        plan = windows(len(drawings), self.layout, overlap)
        return self._frames(plan, canvas, face, drawings, reference_drawing, steps, guidance, seed, on_step)

    def _frames(
        self,
        plan: Sequence[Window],
        canvas: np.ndarray,
        face: np.ndarray,
        drawings: Frames,
        reference_drawing: np.ndarray | None,
        steps: int,
        guidance: float,
        seed: int,
        on_step: OnStep | None,
    ) -> Iterator[np.ndarray]:
        device = self._execution_device
        generator = torch.Generator().manual_seed(seed)
        schedule = {**self.scheduler.config, "_class_name": type(self.scheduler).__name__}
        model = PortraitModel(self.transformer, self.face_projector, self.guider)
        with repeatable_inference():
            reference = self._reference(canvas, generator, model.latent_shape[0]).to(device, self.transformer.dtype)
            tokens = self._face_tokens(face).to(device, self.transformer.dtype)
        noise = None
        done, total = 0, steps * len(plan)
        with self.progress_bar(total=total) as bar:

            def stepped(_of_window: int, latents: Tensor) -> Tensor:
                nonlocal done
                done += 1
                bar.update()
                if on_step is not None:
                    on_step(done, total)
                return latents

            def make(window: Window) -> np.ndarray:
                nonlocal noise
                noise = _noise(noise, window, model.latent_shape, generator)
                control = window_drawings(window, drawings, reference_drawing if self.layout == "ref1+48" else None)
                with repeatable_inference():
                    landmarks = model.landmark_latents(torch.from_numpy(control)[None].to(device))
                    latents = sample(
                        model,
                        schedule,
                        reference=reference,
                        landmarks=landmarks.to(self.transformer.dtype),
                        face_tokens=tokens,
                        noise=noise.to(device),
                        steps=steps,
                        guidance=guidance,
                        generator=generator,
                        on_step=stepped,
                    )
                    return self._decode(latents)

            try:
                yield from joined(plan, make)
            finally:
                self.maybe_free_model_hooks()

    def _reference(self, canvas: np.ndarray, generator: torch.Generator, frames: int) -> Tensor:
        """Scaled latents [1, F, 16, h, w]: the portrait in latent 0, then zeros. A VAE's are drawn from its distribution."""
        pixels = torch.tensor(canvas).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1
        if self.vae is None:
            latent = shrunk(pixel_latents(pixels), self.trained_on.shrink)
        else:
            encoded = self.vae.encode(pixels.to(self._execution_device, self.vae.dtype)).latent_dist
            latent = self.vae.config.scaling_factor * encoded.sample(generator)
        return functional.pad(latent.transpose(1, 2), (0, 0, 0, 0, 0, 0, 0, frames - 1))

    def _face_tokens(self, face: np.ndarray) -> Tensor:
        """[1, 729, 1152], rounded to float16 as a dataset's."""
        if self.image_encoder is None:
            return torch.from_numpy(PatchTokens()(face))[None]
        pixels = torch.from_numpy(siglip_pixels(face, self.image_encoder.config.image_size))[None]
        pixels = pixels.to(self._execution_device, self.image_encoder.dtype)
        hidden: Tensor = self.image_encoder(pixel_values=pixels).last_hidden_state
        return hidden.half()

    def _decode(self, latents: Tensor) -> np.ndarray:
        """Scaled latents float32 [1, F, 16, h, w] → pictures uint8 [4F−3, H, W, 3]."""
        if self.vae is None:
            return whole_frames(PixelsCodec().decode, latents, 1.0)
        unscaled = latents.transpose(1, 2) / self.vae.config.scaling_factor
        return to_frames(self.vae.decode(unscaled.to(self.vae.dtype)).sample[0])

    def _check_pictures(
        self, canvas: np.ndarray, face: np.ndarray, drawings: Frames, reference_drawing: np.ndarray | None
    ) -> None:
        picture = (self.height, self.width, 3)
        if not len(drawings):
            raise UserError("there is no drawing to animate by; give at least one")
        if self.layout == "ref1+48" and reference_drawing is None:
            raise UserError("the model's first picture is the portrait's own landmarks; give its reference_drawing")
        for name, given, shape in (
            ("canvas", canvas, picture),
            ("face", face, (FACE_SIZE, FACE_SIZE, 3)),
            ("a drawing", np.asarray(drawings[:1])[0], picture),
            ("reference_drawing", reference_drawing, picture),
        ):
            if given is not None and (given.shape != shape or given.dtype != np.uint8):
                raise UserError(f"{name} must be uint8 {list(shape)}, and is {given.dtype} {list(given.shape)}")


def _noise(before: Tensor | None, window: Window, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Noise float32 [1, F, 16, h, w] for a window: that of the one before, ``before``, for the latents that both have."""
    fresh = torch.randn(1, *shape, generator=generator)
    if before is not None and window.shared_latents:
        first, shared = window.first_shared, window.shared_latents
        fresh[:, first : first + shared] = before[:, -shared:]
    return fresh
