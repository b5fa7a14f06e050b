"""How a model does on clips it is not trained on: losses that can be compared over a run, and videos to look at."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from shards.storage import make_folder
from training.codec import load_codec
from training.conditioning import Inputs, model_inputs
from training.data import HeldOut
from training.ema import reshard
from training.objective import velocity_loss
from training.parallel import World
from training.sampling import DDIM, sample
from training.schedule import NoiseSchedule
from training.validation_config import ValidationConfig
from training.validation_video import write_comparison

_NOTHING_BUT_NOISE = 999
_INPUTS = {"landmarks": ("landmarks", "renders"), "face": ("face_tokens",)}
"""What another clip's is given in place of the own, by what it is called in the results; and the model's arguments for it."""


class Validation:
    """Validates a model that may be spread over the ranks of ``world``; every method is a collective call.

    ``schedule_config`` is the checkpoint's noise schedule, ``dtype`` what the model's input is cast to, ``out`` the run's
    folder. Clips are divided among the ranks. All ranks call the model equally often, as FSDP needs it: one that has no clip
    left does another's again, for nothing.
    """

    def __init__(
        self,
        config: ValidationConfig,
        held_out: HeldOut,
        schedule_config: Mapping[str, Any],
        world: World,
        dtype: torch.dtype,
        out: Path,
    ) -> None:
        self._config = config
        self._held_out = held_out
        self._schedule_config = schedule_config
        self._schedule = NoiseSchedule(schedule_config, world.device)
        self._world = world
        self._dtype = dtype
        self._out = out

    def losses(self, model: nn.Module) -> dict[str, float]:
        """The loss of training, on held-out clips at fixed timesteps, without dropout; the same on all ranks.

        - ``held_out``: the mean over clips and timesteps; ``held_out/t0100`` …: over clips, at one timestep;
        - ``held_out_other_landmarks``, ``held_out_other_face``: as ``held_out``, but each clip is given the landmarks or the
          face of the next one. A model that uses what it is given does worse. Left out where there is only one clip.

        Noise is by clip and timestep: it is the same every time, and takes nothing from training's. Each clip goes through
        the model alone and the means are taken over clips in their order in float64, so that the world size has no part in
        the result.
        """
        timesteps = self._config.timesteps
        count = min(self._config.samples, len(self._held_out))
        others = tuple(_INPUTS) if count > 1 else ()
        found = torch.zeros(count, len(timesteps), 1 + len(others), dtype=torch.float64, device=self._world.device)
        with _evaluating(model):
            for number, own in self._turns(count):
                neighbour = self._inputs((number + 1) % count, timesteps[0]).arguments
                for column, timestep in enumerate(timesteps):
                    inputs = self._inputs(number, timestep)
                    given = [inputs.arguments, *(_exchanged(inputs.arguments, neighbour, name) for name in others)]
                    for kind, arguments in enumerate(given):
                        loss = velocity_loss(model(**arguments), inputs.target, inputs.weight)
                        if own:
                            found[number, column, kind] = loss[0]
        # Each entry is of one rank, and 0 on all others: the sum is exact.
        dist.all_reduce(found)
        means = found.cpu().mean(dim=(0, 1)).tolist()
        of_timesteps = found[:, :, 0].mean(dim=0).tolist()
        return {
            "held_out": means[0],
            **{f"held_out/t{timestep:04d}": loss for timestep, loss in zip(timesteps, of_timesteps, strict=True)},
            **{f"held_out_other_{name}": mean for name, mean in zip(others, means[1:], strict=True)},
        }

    def videos(self, model: nn.Module, step: int) -> list[Path]:
        """Generate the first held-out clips from noise, and write ``validation/step-NNNNNNNN/CLIP.mp4``.

        Side by side: reference, landmarks as the model sees them (decoded latents, or drawings where it has its guider), the
        true clip, the generated one. The noise is the same every time. Returns the files that this rank wrote: each rank
        writes those of its clips.
        """
        folder = self._out / "validation" / f"step-{step:08d}"
        written = []
        codec = None
        with _evaluating(model):
            for number, own in self._turns(min(self._config.videos, len(self._held_out))):
                prepared = self._held_out.prepared([number], _NOTHING_BUT_NOISE).to(self._world.device)
                arguments = model_inputs(prepared, self._schedule, None, self._dtype).arguments
                landmarks = next(arguments[name] for name in _INPUTS["landmarks"] if name in arguments)
                latents = sample(
                    model,
                    {**self._schedule_config, "_class_name": DDIM},
                    reference=arguments["reference"],
                    landmarks=landmarks,
                    face_tokens=arguments["face_tokens"],
                    noise=prepared.draws.noise,
                    steps=self._config.video_steps,
                    guidance=self._config.guidance,
                )
                if own:
                    codec = codec or load_codec(self._held_out.recipe.codec)
                    make_folder(folder)
                    path = folder / f"{prepared.clip_ids[0]}.mp4"
                    write_comparison(path, codec, self._held_out, number, landmarks, latents, prepared.scale)
                    written.append(path)
        return written

    def _turns(self, count: int) -> Iterator[tuple[int, bool]]:
        """The numbers of this rank's clips out of ``count``, as many on each rank; false for those done for nothing."""
        for begin in range(0, count, self._world.world):
            number = begin + self._world.rank
            yield number % count, number < count

    def _inputs(self, number: int, timestep: int) -> Inputs:
        prepared = self._held_out.prepared([number], timestep).to(self._world.device)
        return model_inputs(prepared, self._schedule, None, self._dtype)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
        reshard(model)


def _exchanged(arguments: Mapping[str, Tensor], neighbour: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {**arguments, **{key: neighbour[key] for key in _INPUTS[name] if key in arguments}}
