"""The model of SkyReels-A1: CogVideoX's transformer, a projector for face tokens, and a landmark guider.

``build_model`` makes it with its initial weights; how each kind of checkpoint becomes those is in :mod:`training.convert`.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from torch import Tensor, nn

from faceloom.errors import UserError
from training import cogvideox_5b
from training.codec import CodecConfig
from training.convert import check_fit, from_base, from_release, kind_of, portrait_config
from training.face_projector import FaceProjector
from training.guider import LandmarkGuider, PixelsGuider
from training.latents import CHANNELS
from training.model_config import SCRATCH, ModelConfig
from training.pretrained import CONFIG, Weights, find_pipeline, read_json
from training.vae import load_vae, read_config


class PortraitModel(nn.Module):
    """Predicts the velocity of a noisy clip from a reference frame, drawn landmarks and face tokens.

    ``transformer`` is diffusers' own ``CogVideoXTransformer3DModel`` with 48 input channels (noise | landmarks | reference,
    the order of the released pipeline) and face tokens where CogVideoX has text; ``face`` makes them of SigLIP's 729;
    ``guider`` turns drawings into landmark latents and may be absent where those are given.
    """

    def __init__(
        self,
        transformer: CogVideoXTransformer3DModel,
        face: FaceProjector,
        guider: LandmarkGuider | PixelsGuider | None,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.face = face
        self.guider = guider
        self._rotary: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(F, C, h, w) of the one clip size the model is for."""
        config = self.transformer.config
        frames = (config.sample_frames - 1) // config.temporal_compression_ratio + 1
        return frames, CHANNELS, config.sample_height, config.sample_width

    def forward(
        self,
        noisy: Tensor,
        timestep: Tensor,
        reference: Tensor,
        face_tokens: Tensor,
        landmarks: Tensor | None = None,
        renders: Tensor | None = None,
        drop_landmarks: Tensor | None = None,
    ) -> Tensor:
        """The velocity [B, F, 16, h, w] of ``noisy``, in its dtype unless autocast says otherwise.

        ``noisy``, ``reference`` and ``landmarks`` are scaled latents [B, F, 16, h, w], ``timestep`` int64 [B] in 0…999,
        ``face_tokens`` [B, 729, 1152]. In place of ``landmarks``, ``renders`` uint8 [B, 4F−3, H, W, 3] go through the guider.
        ``drop_landmarks`` bool [B] zeroes the latents of some, wherever they came from. Raises ``ValueError`` for latents of
        another size, since diffusers would quietly replace the learned positions, or unless exactly one kind of landmarks is
        given.
        """
        if noisy.shape[1:] != self.latent_shape:
            raise ValueError(
                f"the model is for latents [B, F, C, h, w] of {self.latent_shape}, not {list(noisy.shape)}"
            )
        if (landmarks is None) == (renders is None):
            raise ValueError("give either landmarks or renders")
        if landmarks is None:
            assert renders is not None
            landmarks = self.landmark_latents(renders)
        if drop_landmarks is not None:
            landmarks = landmarks.masked_fill(drop_landmarks[:, None, None, None, None], 0)
        latents = torch.cat([noisy, landmarks.to(noisy.dtype), reference], dim=2)
        velocity: Tensor = self.transformer(
            latents,
            self.face(face_tokens),
            timestep,
            image_rotary_emb=self._rotary_embedding(noisy.device),
            return_dict=False,
        )[0]
        return velocity

    def landmark_latents(self, renders: Tensor) -> Tensor:
        """Drawings uint8 [B, 4F−3, H, W, 3] → scaled latents [B, F, 16, h, w]; gradients flow to the guider."""
        if self.guider is None:
            raise ValueError("the model was built without its landmark guider")
        pixels = renders.permute(0, 4, 1, 2, 3).float().div_(127.5).sub_(1)
        latents: Tensor = self.guider(pixels)
        return latents.transpose(1, 2)

    def _rotary_embedding(self, device: torch.device) -> tuple[Tensor, Tensor]:
        # No buffers: a model cast to bfloat16 must not round them.
        if device not in self._rotary:
            config = self.transformer.config
            frames, _, height, width = self.latent_shape
            patches = (height // config.patch_size, width // config.patch_size)
            # The whole grid is the base grid, so that the pipeline's crop is everything.
            self._rotary[device] = get_3d_rotary_pos_embed(
                config.attention_head_dim, ((0, 0), patches), patches, frames, device=device
            )
        return self._rotary[device]


def build_model(
    config: ModelConfig,
    codec: CodecConfig,
    grid: tuple[int, int],
    *,
    guider: bool,
    device: Literal["cpu", "meta"] = "cpu",
) -> PortraitModel:
    """The model with its initial weights in float32; on ``meta`` its structure alone, for which config files suffice.

    ``grid`` is (h, w) of the latents. Equal configs and checkpoints give equal bits in every process. Memory stays at one
    copy of the weights. Raises :class:`UserError` if a checkpoint is missing, incomplete, of another model or of other grid.
    """
    pipeline = _find_init(config, device)
    sizes = _transformer_sizes(config, pipeline, grid)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        # A checkpoint's tensors take the place of parameters that never had memory.
        with torch.device("meta" if pipeline else device):
            transformer = CogVideoXTransformer3DModel(**sizes).float()  # its positions would be float64
        with torch.device(device):
            face = FaceProjector(sizes["text_embed_dim"], sizes["max_text_seq_length"])
        model = PortraitModel(transformer, face, _build_guider(config, codec, grid, device) if guider else None)
    if config.init == SCRATCH:
        # As conversion from CogVideoX leaves them: landmarks change nothing until a stage learns to read them.
        nn.init.zeros_(transformer.patch_embed.proj.weight[:, CHANNELS : 2 * CHANNELS].data)
    if pipeline and device == "cpu":
        _load(model, pipeline)
    return model


def load_schedule_config(config: ModelConfig) -> dict[str, Any]:
    """The noise schedule that ``config.init`` was trained with: its ``scheduler_config.json``, never a class's defaults.

    Raises :class:`UserError` if the checkpoint has none.
    """
    if config.init == SCRATCH:
        return dict(cogvideox_5b.SCHEDULER)
    return read_json(find_pipeline(config.init, "model.init") / "scheduler" / "scheduler_config.json")


def guider_source(config: ModelConfig, codec: CodecConfig) -> str:
    """The folder, or the id in the Hugging Face cache, of what the landmark guider starts as."""
    if config.guider is not None:
        return str(_own_guider(Path(config.guider)) or config.guider)
    # Before a download there is no folder to look into.
    pipeline = _find_init(config, "meta")
    return str((pipeline and _own_guider(pipeline)) or codec.vae_model)


def _own_guider(folder: Path) -> Path | None:
    """The guider in the folder of a release (``pose_guider``) or of an export (``guider``)."""
    return next((folder / name for name in ("pose_guider", "guider") if (folder / name).is_dir()), None)


def _find_init(config: ModelConfig, device: str) -> Path | None:
    """The folder of the pipeline ``config.init``; None for ``scratch``, and on ``meta`` for the model whose sizes we know."""
    if config.init == SCRATCH:
        return None
    try:
        return find_pipeline(config.init, "model.init")
    except UserError:
        if device == "meta" and config.init == cogvideox_5b.HUB_ID:
            return None
        raise


def _transformer_sizes(config: ModelConfig, pipeline: Path | None, grid: tuple[int, int]) -> dict[str, Any]:
    """The arguments of the transformer; refuses those that this version of diffusers has not, and another ``grid``."""
    if config.init == SCRATCH:
        scratch = config.scratch.model_dump()
        scratch |= {
            "max_text_seq_length": scratch.pop("face_tokens"),
            "sample_height": grid[0],
            "sample_width": grid[1],
        }
        return portrait_config(SCRATCH, cogvideox_5b.TRANSFORMER | scratch)
    read = read_json(pipeline / "transformer" / CONFIG) if pipeline else cogvideox_5b.TRANSFORMER
    sizes = portrait_config(config.init, read)
    unknown = sizes.keys() - inspect.signature(CogVideoXTransformer3DModel.__init__).parameters.keys()
    if unknown:
        raise UserError(f"model.init: {config.init} is no CogVideoX: its config.json has {min(unknown)}")
    made_for = (sizes.get("sample_height", 60), sizes.get("sample_width", 90))
    if made_for != grid:
        raise UserError(
            f"model.init: {config.init} is for latents of {made_for[0]}×{made_for[1]} cells, and these have "
            f"{grid[0]}×{grid[1]}; set data.shrink to 1 for pretrained weights, or to what the checkpoint was trained with"
        )
    return sizes


def _load(model: PortraitModel, pipeline: Path) -> None:
    """Give ``model`` the weights in ``pipeline``; its guider, and a face projector that these lack, keep their own."""
    folder, projector = pipeline / "transformer", pipeline / "face_projector"
    config, weights = read_json(folder / CONFIG), Weights(folder)
    kind = kind_of(str(pipeline), config, weights.shapes, projector.is_dir())

    def named(name: str, tensor: Tensor) -> tuple[str, Tensor]:
        if kind == "release":
            return from_release(name), tensor
        return f"transformer.{name}", from_base(name, tensor, config) if kind == "base" else tensor

    found = dict(named(name, torch.empty(shape, device="meta")) for name, shape in weights.shapes.items())
    kept = ("guider.", "face.") if kind == "base" else ("guider.",)
    state = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(kept)}
    if kind == "export":
        state.update((f"face.{name}", tensor) for name, tensor in Weights(projector))
    check_fit(str(pipeline), _shapes(found | state), _shapes(model.state_dict()))
    state.update(named(name, tensor) for name, tensor in weights)
    model.load_state_dict(state, strict=True, assign=True)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _build_guider(
    config: ModelConfig, codec: CodecConfig, grid: tuple[int, int], device: str
) -> LandmarkGuider | PixelsGuider:
    source = guider_source(config, codec)
    if codec.codec == "pixels":
        with torch.device(device):
            guider = PixelsGuider(grid)
        if device == "cpu":
            _load_stand_in(guider, source, required=config.guider is not None)
        return guider
    if device == "meta":
        with torch.device("meta"):
            vae = AutoencoderKLCogVideoX(**_vae_sizes(source))
    else:
        vae = load_vae(source, "fp32", key="model.guider" if source != codec.vae_model else "codec.vae_model")
    if vae.quant_conv is not None:
        raise UserError(
            f"model.guider: {source} has a quant_conv after its encoder, as no CogVideoX VAE has; name another"
        )
    return LandmarkGuider(vae.encoder, vae.config.scaling_factor)


def _vae_sizes(source: str) -> Mapping[str, Any]:
    try:
        return read_config(source)
    except UserError:
        if source == cogvideox_5b.HUB_ID:
            return cogvideox_5b.VAE
        raise


def _load_stand_in(guider: PixelsGuider, source: str, *, required: bool) -> None:
    """The weights that an earlier run with the codec ``pixels`` gave its guider, if ``source`` is of one."""
    folder = Path(source)
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    if config.get("_class_name") == PixelsGuider.__name__:
        weights = Weights(folder)
        check_fit(source, weights.shapes, _shapes(guider.state_dict()))
        guider.load_state_dict(dict(weights), strict=True, assign=True)
    elif required:
        raise UserError(
            f"model.guider: {source} holds no guider for the codec pixels; leave model.guider out, or set codec.codec to vae"
        )
