"""What the training loop adds to the work of the model: ``faceloom train`` beside a bare loop and beside diffusers' script.

    python -m bench.train [--steps 5] [--repeats 15] [--peers DIR]

The whole of :func:`training.train.train` runs on a small dataset in ``/dev/shm``; after every few steps it is held up and the
others take as many, with the same model on the same samples. ``DIR`` holds the environment ``accelerate``, with which
diffusers' script is measured too; ``bench/README.md`` has the commands, and says what is measured and how. On the CPU.
"""

import argparse
import contextlib
import hashlib
import io
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # of a model this small, a GPU would only show how fast Python is
# By default, threads that wait spin, until there are more of them than cores: so in the script's process, and not in ours,
# which has threads that prepare.
os.environ["OMP_WAIT_POLICY"] = "passive"

import numpy as np
import torch
from rich.table import Table

import training.train
from bench.reader import MEMORY, SCRIPTS, Contender, Figure, console, machine, require_version
from shards.dataset import DatasetRecord, ManifestSummary
from shards.layers import LayerRecord
from shards.schema import (
    BASE_LAYER,
    FACE_DIM,
    FACE_TOKENS,
    FRAMES,
    LATENT_FRAMES,
    LATENT_HEIGHT,
    LATENT_WIDTH,
    LATENTS_LAYER,
    META_KEYS,
    encode_field,
    layer_fields,
)
from shards.writer import write_layer
from training.codec import load_codec
from training.conditioning import Inputs, model_inputs
from training.data import TrainingData
from training.data_config import ReferenceConfig
from training.encode_config import EncodeConfig
from training.job import Job
from training.latents import CHANNELS, bfloat16_bits
from training.model import PortraitModel, build_model, load_schedule_config
from training.objective import velocity_loss
from training.place import Place
from training.prepared import Prepared, Recipe
from training.report import Reporter
from training.schedule import NoiseSchedule
from training.stage import StepResult
from training.train_config import TrainConfig

SAMPLES, SHARDS, MICRO = 32, 4, 2
WARM_UP, STEADY = 1, 4
"""Blocks before the rounds, and blocks after them: those follow each other without a break, and tell how long data are waited
for."""
FLOW_P995 = 20.0
LATENT = (LATENT_FRAMES, LATENT_HEIGHT, LATENT_WIDTH)
PEER = Contender("accelerate==1.15.0", "with_diffusers")
OURS, BARE, SCRIPT = "faceloom train", "bare loop", "diffusers' script"
MOST_RATIO, MOST_WAIT = 1.05, 0.02


@dataclass(frozen=True)
class Block:
    """Some consecutive steps: seconds a step, of the clock and of the CPU with all threads."""

    wall_s: float
    cpu_s: float


TakeSteps = Callable[[int], Block]


class Rounds:
    """The order of blocks: those of the others come while ours is held up, the first of them in turn.

    :meth:`after_step` is called after each of our steps. The first blocks of all are not counted.
    """

    def __init__(self, others: dict[str, TakeSteps], steps: int, repeats: int) -> None:
        self.blocks: dict[str, list[Block]] = {name: [] for name in (OURS, *others)}
        self._others = others
        self._steps = steps
        self._repeats = repeats
        self._began, self._cpu = time.monotonic(), time.process_time()

    def after_step(self, done: int) -> None:
        """``done`` steps are over; the time from here to the end of the call is not ours."""
        block, rest = divmod(done, self._steps)
        if rest or block > WARM_UP + self._repeats:
            return
        cpu, wall = time.process_time() - self._cpu, time.monotonic() - self._began
        taken = {OURS: Block(wall / self._steps, cpu / self._steps)}
        names = list(self._others)
        for name in names[block % len(names) :] + names[: block % len(names)]:
            settle()
            taken[name] = self._others[name](self._steps)
        if block > WARM_UP:
            for name, times in taken.items():
                self.blocks[name].append(times)
            print(f"round {block - WARM_UP} of {self._repeats} done", file=sys.stderr)
        settle()
        self._began, self._cpu = time.monotonic(), time.process_time()


class BareLoop:
    """The least that trains the same model: its tensors lie ready, and every sample weighs the same."""

    def __init__(self, model: PortraitModel, inputs: Sequence[Inputs], config: TrainConfig) -> None:
        self._model = model.train()
        self._inputs = itertools.cycle(inputs)
        self._clip = config.optimizer.clip_grad_norm
        self._optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=config.stages[0].lr,
            betas=config.optimizer.betas,
            weight_decay=config.optimizer.weight_decay,
            foreach=True,
        )

    def take(self, steps: int) -> Block:
        """Forward, mean square error, backward, clip, step."""
        began, cpu = time.monotonic(), time.process_time()
        for _ in range(steps):
            arguments, target, _ = next(self._inputs)
            loss = torch.nn.functional.mse_loss(self._model(**arguments), target)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._clip)
            self._optimizer.step()
            self._optimizer.zero_grad()
        return Block((time.monotonic() - began) / steps, (time.process_time() - cpu) / steps)


class ScriptLoop:
    """``bench/peers/with_diffusers.py`` in its environment; ``given`` is its file, ``folder`` for what it writes."""

    def __init__(self, peers: Path, given: Path, folder: Path) -> None:
        script = str(SCRIPTS / f"{PEER.script}.py")
        command = [PEER.python(peers), script, "--given", str(given), "--batch", str(MICRO), "--out", str(folder)]
        folder.mkdir()
        self._errors = (folder / "stderr").open("w+")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        self.first_loss: float = self._answer()
        """Of the batch ``check``."""

    def take(self, steps: int) -> Block:
        """Let it take steps; measured on its side of the pipe."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        wall_s, cpu_s = self._answer()
        return Block(wall_s / steps, cpu_s / steps)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(timeout=60)
        self._errors.close()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise SystemExit(f"{SCRIPT} failed\n{self._errors.read()[-4000:]}")
        return json.loads(line)


def main() -> None:
    """Write the samples, take the rounds, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5, help="in a block (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=15, help="blocks of each loop (default: %(default)s)")
    parser.add_argument("--peers", type=Path, help="folder with the peers' virtual environments")
    args = parser.parse_args()
    if args.steps < 1 or args.repeats < 1:
        parser.error("--steps and --repeats must be at least 1")
    peers = args.peers and args.peers.absolute()
    if peers:
        require_version(PEER, peers)
    with contextlib.ExitStack() as cleanup:
        root = Path(tempfile.mkdtemp(prefix="faceloom-train-", dir=MEMORY))
        cleanup.callback(shutil.rmtree, root)
        data = write_dataset(root / "data")
        config = configuration(args.steps, args.repeats)
        batches = held_batches(data, config)
        inputs = [of_batch(batch, config) for batch in batches]
        model = build_model(config.model, config.codec, config.data.grid, guider=False)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        others: dict[str, TakeSteps] = {}
        if peers:
            write_given(root / "given.pt", model, batches, inputs[0], config)
            script = ScriptLoop(peers, root / "given.pt", root / "script")
            cleanup.callback(script.close)
            check_loss(model, inputs[0], script.first_loss)
            others[SCRIPT] = script.take
        others = {BARE: BareLoop(model, inputs, config).take, **others}
        print_machine(parameters, config)
        rounds = Rounds(others, args.steps, args.repeats)
        train_with(rounds, Job(config, (data,), root / "run"))
        print_machine(parameters, config)
        waited = data_wait(root / "run" / "metrics.jsonl")
    print_table(rounds.blocks)
    print_goals(rounds.blocks, waited)


def train_with(rounds: Rounds, job: Job) -> None:
    """``faceloom train`` with ``rounds`` between its steps; reports leave out the time of those."""

    class HeldUp(Reporter):
        def step(self, place: Place, result: StepResult, damaged: int, stop: bool, last: bool) -> bool:
            stopping = super().step(place, result, damaged, stop, last)
            with self.paused():
                rounds.after_step(place.step)
            return stopping

    with mock.patch.object(training.train, "Reporter", HeldUp), contextlib.redirect_stdout(io.StringIO()):
        complete = training.train.train(job)
    if not complete:
        raise SystemExit("stopped by a signal")


def settle() -> None:
    """Wait until this process has nothing left to do: samples prepared ahead of our next block are no part of another's."""
    for _ in range(100):
        before = time.process_time()
        time.sleep(0.02)
        if time.process_time() - before < 0.001:
            return


def configuration(block: int, repeats: int) -> TrainConfig:
    """Defaults, but for a model and a batch that two cores can step through in less than a second; a report a block."""
    steps = (WARM_UP + repeats + STEADY) * block
    return TrainConfig.model_validate(
        {
            "dtype": "fp32",
            "model": {"init": "scratch"},
            "codec": {"codec": "pixels"},
            "data": {"shrink": 5, "face_tokens": "patches"},
            "stages": [{"name": "bench", "steps": steps, "lr": 1e-4, "trainable": ["transformer", "face"]}],
            "batch": {"size": MICRO, "micro": MICRO},
            "parallel": {"activation_checkpointing": False},
            "checkpoint": {"every": steps},
            "metrics": {"every": block},
        }
    )


def held_batches(data: Path, config: TrainConfig) -> list[Prepared]:
    """All samples once, as our loop prepares them, but nothing dropped."""
    recipe = Recipe(config.data, config.codec, ReferenceConfig(dropout=0.0), config.weight)
    with TrainingData((data,), recipe).batches(MICRO, rank=0, world=1, consumed=0) as batches:
        return list(itertools.islice(batches, SAMPLES // MICRO))


def of_batch(batch: Prepared, config: TrainConfig) -> Inputs:
    """What the model takes."""
    return model_inputs(batch, NoiseSchedule(load_schedule_config(config.model)), None, torch.float32)


def write_given(
    path: Path, model: PortraitModel, batches: Sequence[Prepared], first: Inputs, config: TrainConfig
) -> None:
    """The file that ``bench/peers/with_diffusers.py`` reads."""
    samples = []
    for batch in batches:
        assert batch.reference is not None
        assert batch.landmarks is not None
        latents = {"video": batch.video, "landmarks": batch.landmarks, "reference": batch.reference}
        parts = latents | {"tokens": batch.face_tokens}
        samples += [{name: part[row : row + 1] for name, part in parts.items()} for row in range(MICRO)]
    arguments, draws = first.arguments, batches[0].draws
    clean = batches[0].scale * batches[0].video.float().transpose(1, 2)
    check = (
        clean,
        arguments["landmarks"],
        arguments["reference"],
        arguments["face_tokens"],
        draws.noise,
        draws.timestep,
    )
    given = {
        "config": {name: value for name, value in model.transformer.config.items() if not name.startswith("_")},
        "scheduler": load_schedule_config(config.model),
        "transformer": model.transformer.state_dict(),
        "face": model.face.state_dict(),
        "samples": samples,
        "scale": batches[0].scale,
        "check": check,
    }
    torch.save(given, path)


def check_loss(model: PortraitModel, inputs: Inputs, theirs: float) -> None:
    """Both have the same model and mean the same by a loss, or the bench ends."""
    with torch.no_grad():
        ours = velocity_loss(model(**inputs.arguments), inputs.target, torch.ones_like(inputs.weight)).mean().item()
    if abs(ours - theirs) > 1e-3 * ours:
        raise SystemExit(f"{SCRIPT} has a loss of {theirs} where ours is {ours}: they do not compute the same")


def write_dataset(root: Path) -> Path:
    """A finished dataset of noise with a layer of latents of the codec ``pixels``; returns ``root``."""
    random = np.random.default_rng(0)
    keys = [hashlib.sha256(str(number).encode()).hexdigest()[:16] for number in range(SAMPLES)]
    parts = [keys[part::SHARDS] for part in range(SHARDS)]
    root.mkdir()

    def base(key: str) -> dict[str, bytes]:
        fields = layer_fields(BASE_LAYER, ("face_tokens.npy",))
        values: dict[str, Any] = {field.name: np.zeros(field.shape, field.dtype) for field in fields if field.dtype}
        values["face_tokens.npy"] += random.standard_normal((FACE_TOKENS, FACE_DIM)).astype(np.float16)
        values["flow.npy"] += random.uniform(0, 1.2 * FLOW_P995, LATENT).astype(np.float16)
        values["video.mp4"] = b"\0\0\0\x18ftypisom"
        values["face.jpg"] = values["reference.jpg"] = b"\xff\xd8\xff"
        about = {"clip_id": key, "n_valid": FRAMES, "face_encoder": "patches", "flow": {"p995": FLOW_P995}}
        values["meta.json"] = dict.fromkeys(META_KEYS) | about
        return {name: encode_field(name, value) for name, value in values.items()}

    def latents() -> dict[str, bytes]:
        shapes = {"video_moments": LATENT, "landmark_latents": LATENT, "reference_moments": (1, *LATENT[1:])}
        values = {name: random.uniform(-1, 1, (CHANNELS, *shape)).astype(np.float32) for name, shape in shapes.items()}
        names = {f"{name}.safetensors": bfloat16_bits(value) for name, value in values.items()}
        return {name: encode_field(name, bits) for name, bits in names.items()}

    shards = [write_layer(root, n, BASE_LAYER, [(key, base(key)) for key in part]) for n, part in enumerate(parts)]
    record = DatasetRecord(
        complete=True,
        config={"landmarks": {"backend": "mediapipe"}, "face": {"encoder": "patches"}},
        config_fingerprint="0" * 64,
        fingerprints={},
        licences=(),
        manifest=ManifestSummary(sha256="0" * 64, clips=SAMPLES, blocks=SHARDS, block_clips=SAMPLES // SHARDS),
        shards=tuple(shards),
    )
    record.save(root)
    shards = [write_layer(root, n, LATENTS_LAYER, [(key, latents()) for key in part]) for n, part in enumerate(parts)]
    encode = EncodeConfig()
    LayerRecord(
        layer=LATENTS_LAYER,
        complete=True,
        config=encode.deciding | {"codec_fingerprint": load_codec(encode.codec).fingerprint},
        fingerprint="0" * 64,
        base=record.checksum,
        shards=tuple(shards),
    ).save(root)
    return root


def data_wait(metrics: Path) -> float:
    """Share of the time that our loop waited for batches while nothing held it up, and what lay ready was used up."""
    reports = [json.loads(line) for line in metrics.read_text().splitlines()]
    shares: list[float] = [report["speed/data_wait"] for report in reports[1 - STEADY :]]
    return statistics.mean(shares)


def print_machine(parameters: int, config: TrainConfig) -> None:
    """What the figures depend on."""
    h, w = config.data.grid
    model = f"{parameters / 1e6:.1f} M parameters, latents of {h}×{w} cells, {MICRO} samples a step, fp32"
    console.print(f"{machine()}; torch with {torch.get_num_threads()} threads; {model}")


def print_table(blocks: dict[str, list[Block]]) -> None:
    """Time and CPU time of a step."""
    table = Table(title=f"A step, medians \\[range] of {len(blocks[OURS])} blocks")
    table.add_column("loop")
    for column in ("ms", "CPU ms", "ours ÷ it", "CPU ours ÷ it"):
        table.add_column(column, justify="right")
    for name in blocks:
        wall, cpu = figures(blocks, name)
        row = [Figure(tuple(1e3 * value for value in figure.values)).text() for figure in (wall, cpu)]
        if name != OURS:
            row += [ours.per(its).text(3) for ours, its in zip(figures(blocks, OURS), (wall, cpu), strict=True)]
        table.add_row(name, *row)
    console.print(table)


def print_goals(blocks: dict[str, list[Block]], waited: float) -> None:
    """The goals; beside the script there is none."""
    ratio = statistics.median(figures(blocks, OURS)[0].per(figures(blocks, BARE)[0]).values)
    console.print(f"a step, ours ÷ {BARE}: {ratio:.3f} (goal: at most {MOST_RATIO}, {verdict(ratio <= MOST_RATIO)})")
    console.print(
        f"waited for data: {waited:.2%} of the time (goal: at most {MOST_WAIT:.0%}, {verdict(waited <= MOST_WAIT)})"
    )


def figures(blocks: dict[str, list[Block]], name: str) -> tuple[Figure, Figure]:
    """Seconds a step of one loop, block by block: of the clock, of the CPU."""
    return Figure(tuple(b.wall_s for b in blocks[name])), Figure(tuple(b.cpu_s for b in blocks[name]))


def verdict(reached: bool) -> str:
    """In words."""
    return "reached" if reached else "not reached"


if __name__ == "__main__":
    main()
