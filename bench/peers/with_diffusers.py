"""The loop of diffusers' ``examples/cogvideo/train_cogvideox_image_to_video_lora.py``, for ``bench.train``.

What a step does there, in its order and with its libraries: accelerate, a ``DataLoader`` without workers that collates
latents held in memory, the scheduler's own noise and velocity, a new rotary embedding, x̂0's error over 1 − ᾱ, tracker and
progress bar. Other than there, all parameters are trained and not a LoRA's; landmark latents stand between noise and image;
face tokens go through a projector where T5's embeddings stood; latents come from ``--given`` and have no posterior to sample.

Reads numbers of steps from stdin, a line each, takes them and answers with a line of JSON: ``[wall seconds, CPU seconds]``.
The first line out is the loss of the batch ``check`` of ``--given``, before any step.
"""

import argparse
import json
import random
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration, set_seed
from diffusers import CogVideoXDPMScheduler, CogVideoXTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.optimization import get_scheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

IMAGE_DROPOUT = 0.05
LEARNING_RATE = 1e-4
"""The script's defaults, like all that is not named here."""


class Portrait(nn.Module):
    """The transformer and, in place of its text, the projector of face tokens."""

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__()
        self.transformer = CogVideoXTransformer3DModel.from_config(given["config"])
        self.transformer.load_state_dict(given["transformer"])
        (hidden, width), out = given["face"]["0.weight"].shape, len(given["face"]["2.bias"])
        self.face = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, out))
        self.face.load_state_dict(given["face"])
        self.config = self.transformer.config

    def forward(self, latents: Tensor, tokens: Tensor, timestep: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """The velocity, [B, F, 16, h, w]."""
        velocity: Tensor = self.transformer(
            hidden_states=latents,
            encoder_hidden_states=self.face(tokens),
            timestep=timestep,
            image_rotary_emb=rotary,
            return_dict=False,
        )[0]
        return velocity


class Turns:
    """The steps that stdin asks for, and the time each request took."""

    def __init__(self) -> None:
        self._left = 0

    def begin(self) -> None:
        """Wait for the next request; ends the process where there are no more."""
        line = sys.stdin.readline()
        if not line:
            raise SystemExit
        self._left = int(line)
        self._began, self._cpu = time.monotonic(), time.process_time()

    def step_done(self) -> None:
        """Count a step; after the last of a request, answer it and wait for the next."""
        self._left -= 1
        if not self._left:
            answer([time.monotonic() - self._began, time.process_time() - self._cpu])
            self.begin()


def main() -> None:
    """Set up as the script does, and train for as long as stdin asks for steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--given", type=Path, required=True, help="samples, weights and a batch to check, by torch.save"
    )
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the tracker's files")
    args = parser.parse_args()
    given = torch.load(args.given, weights_only=True)

    accelerator = Accelerator(
        gradient_accumulation_steps=1,
        mixed_precision="no",
        log_with="tensorboard",
        project_config=ProjectConfiguration(project_dir=str(args.out), logging_dir=str(args.out / "logs")),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        cpu=True,
    )
    set_seed(0)
    scheduler = CogVideoXDPMScheduler.from_config(given["scheduler"])
    model = Portrait(given).to(accelerator.device, dtype=torch.float32)
    optimizer = torch.optim.AdamW(
        [{"params": list(model.parameters()), "lr": LEARNING_RATE}], betas=(0.9, 0.95), eps=1e-8, weight_decay=1e-4
    )
    loader = DataLoader(
        given["samples"], args.batch, shuffle=True, collate_fn=lambda examples: collate(examples, given["scale"])
    )
    schedule = get_scheduler("constant", optimizer=optimizer)
    model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
    accelerator.init_trackers("bench")
    with torch.no_grad():
        answer(float(loss_of(model, scheduler, *given["check"])))
    train(accelerator, model, optimizer, loader, schedule, scheduler)


def train(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: DataLoader[Any],
    schedule: Any,
    scheduler: CogVideoXDPMScheduler,
) -> None:
    """Epoch after epoch; ends with the process."""
    turns = Turns()
    bar = tqdm(desc="Steps")
    step = 0
    turns.begin()
    for _ in count():
        model.train()
        for video, landmarks, image, tokens in loader:
            with accelerator.accumulate([model]):
                timestep = torch.randint(
                    0, scheduler.config.num_train_timesteps, (len(video),), device=video.device
                ).long()
                loss = loss_of(model, scheduler, video, landmarks, image, tokens, torch.randn_like(video), timestep)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
            if accelerator.sync_gradients:
                bar.update(1)
                step += 1
            logs = {"loss": loss.detach().item(), "lr": schedule.get_last_lr()[0]}
            bar.set_postfix(**logs)
            accelerator.log(logs, step=step)
            turns.step_done()


def loss_of(
    model: nn.Module,
    scheduler: CogVideoXDPMScheduler,
    video: Tensor,
    landmarks: Tensor,
    image: Tensor,
    tokens: Tensor,
    noise: Tensor,
    timestep: Tensor,
) -> Tensor:
    """float32 []; latents are [B, F, C, h, w]."""
    config = model.config
    noisy = scheduler.add_noise(video, noise, timestep)
    grid = (video.shape[3] // config.patch_size, video.shape[4] // config.patch_size)
    rotary = get_3d_rotary_pos_embed(
        config.attention_head_dim, ((0, 0), grid), grid, video.shape[1], device=video.device
    )
    output = model(torch.cat([noisy, landmarks, image], dim=2), tokens, timestep, rotary)
    clean = scheduler.get_velocity(output, noisy, timestep)
    weights = 1 / (1 - scheduler.alphas_cumprod[timestep])
    while weights.dim() < clean.dim():
        weights = weights.unsqueeze(-1)
    return torch.mean((weights * (clean - video) ** 2).reshape(len(video), -1), dim=1).mean()


def collate(examples: list[dict[str, Tensor]], scale: float) -> tuple[Tensor, ...]:
    """Latents of memory, [1, C, F, h, w], as a batch for the model; the image is padded with zeros to the clip's length."""
    videos, landmarks, images = [], [], []
    for example in examples:
        video = (example["video"] * scale).permute(0, 2, 1, 3, 4)
        image = (example["reference"] * scale).permute(0, 2, 1, 3, 4)
        padding = image.new_zeros((image.shape[0], video.shape[1] - 1, *image.shape[2:]))
        image = torch.cat([image, padding], dim=1)
        if random.random() < IMAGE_DROPOUT:
            image = torch.zeros_like(image)
        videos.append(video)
        landmarks.append((example["landmarks"] * scale).permute(0, 2, 1, 3, 4))
        images.append(image)
    latents = (torch.cat(parts).contiguous().float() for parts in (videos, landmarks, images))
    return (*latents, torch.cat([example["tokens"] for example in examples]).float())


def answer(value: object) -> None:
    """A line for the bench."""
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
