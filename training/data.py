"""What a model is trained on: datasets that fit the configuration, as endless prepared batches or, held out, by number."""

import contextlib
import functools
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from faceloom.errors import UserError
from landmarks.backend import Backend, BackendName, load_backend
from shards.dataset import DatasetRecord
from shards.layers import LayerRecord
from shards.loader import Loader
from shards.plan import DatasetShape, Plan
from shards.reader import ShardedDataset
from shards.schema import HEIGHT, LATENT_FRAMES, WIDTH
from shards.video import decode_video
from training.codec import CodecConfig, load_codec
from training.data_config import ReferenceConfig
from training.encode_config import RenderConfig
from training.guider import latent_scale
from training.latents import CHANNELS
from training.loss_weight import InertWatch
from training.prepared import Prepared, Preparer, Recipe, needed_fields
from training.randomness import Chances, Shapes, draw, draw_held_out

_AHEAD = 2


class TrainingData:
    """One or several datasets to train on, mixed by their sizes.

    Raises :class:`UserError`, naming both sides and the remedy, if a dataset or its layer is missing or unfinished, if it
    was made with another codec, layout or face encoder than ``recipe`` names, and if the datasets differ among each other.
    """

    def __init__(self, roots: Sequence[Path], recipe: Recipe) -> None:
        _check_recipe(recipe)
        made = [_read_making(root, recipe) for root in roots]
        for root, other in zip(roots, made, strict=True):
            if other != made[0]:
                raise UserError(
                    f"{roots[0]} and {root} cannot be mixed: their landmarks are {made[0].landmarks} and {other.landmarks}"
                )
        self.recipe = recipe
        self.datasets = tuple(ShardedDataset(root, needed_fields(recipe, made[0].backend)) for root in roots)
        shapes = [DatasetShape(each.digest, each.shard_sizes, len(each)) for each in self.datasets if len(each)]
        if len(shapes) < len(roots):
            empty = next(str(root) for root, each in zip(roots, self.datasets, strict=True) if not len(each))
            raise UserError(f"{empty} holds no sample to train on; curate more footage, or leave it out")
        self.plan = Plan(shapes, recipe.seed)
        """The order of the samples; a run may be resumed only with its digest and seed (:func:`shards.loader.resume`)."""
        self.drawings = {"backend": made[0].backend, **made[0].landmarks.model_dump(mode="json")}
        """How the landmarks were drawn: the ``backend``, and the ``mode`` and ``style`` of a :class:`RenderConfig`."""
        self._preparer = _preparer(recipe, made[0])
        self._shapes = _shapes(self.datasets[0], recipe)

    def __len__(self) -> int:
        """The number of samples."""
        return sum(map(len, self.datasets))

    @property
    def sample_grid(self) -> tuple[int, int]:
        """(h, w) of the latents."""
        return self.recipe.data.grid

    def batches(self, micro_batch: int, rank: int, world: int, consumed: int) -> "Batches":
        """The batches of ``rank``, ``micro_batch`` samples each, after the ``consumed`` positions that all have consumed.

        All ranks together take ``world * micro_batch`` consecutive positions at a time. Where ``torch.distributed`` is
        initialised this is a collective call, in which the ranks prove that they read by one plan.
        """
        data = self.recipe.data
        loader = Loader(
            self.datasets,
            self.plan,
            micro_batch * world,
            rank=rank,
            world=world,
            consumed=consumed,
            threads=data.threads,
            prefetch_mib=data.prefetch_mib,
            max_damaged_share=data.max_damaged_share,
        )
        return Batches(loader, self._prepare, InertWatch(self.recipe.weight) if rank == 0 else None)

    def _prepare(self, raw: dict[str, Any]) -> Prepared:
        recipe = self.recipe
        chances = Chances(recipe.face_dropout, recipe.landmark_dropout, recipe.reference.dropout)
        return self._preparer(raw, draw(recipe.seed, raw["__position__"].tolist(), self._shapes, chances))


class Batches:
    """An endless iterator over prepared batches; a thread makes them ahead of their use. Use it with ``with``, or close it.

    An error of reading or preparing is raised in its turn, and again by every later call.
    """

    def __init__(self, loader: Loader, prepare: Callable[[dict[str, Any]], Prepared], watch: InertWatch | None) -> None:
        self._loader = loader
        self._prepare = prepare
        self._watch = watch
        self._ready: queue.Queue[Prepared | BaseException] = queue.Queue(maxsize=_AHEAD)
        self._failure: BaseException | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="prepare-batches", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Prepared]:
        return self

    def __next__(self) -> Prepared:
        if self._closing.is_set():
            raise RuntimeError("these batches are closed")
        if self._failure is not None:
            raise self._failure
        ready = self._ready.get()
        if isinstance(ready, BaseException):
            self._failure = ready
            raise ready
        return ready

    @property
    def replaced(self) -> int:
        """How many samples were given in the place of a damaged one, those that are still ahead included."""
        return self._loader.replaced

    def close(self) -> None:
        """End the threads and drop what was made ahead."""
        self._closing.set()
        while self._thread.is_alive():
            with contextlib.suppress(queue.Empty):  # so that a waiting thread has room, and goes on to see the end
                self._ready.get_nowait()
            self._thread.join(timeout=0.01)
        self._loader.close()

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def _work(self) -> None:
        try:
            for raw in self._loader:
                batch = self._prepare(raw)
                if self._watch:
                    self._watch.see(len(batch), batch.above_1)
                self._ready.put(batch.pinned() if torch.cuda.is_available() else batch)
                if self._closing.is_set():
                    return
        except BaseException as error:
            self._ready.put(error)


class HeldOut:
    """A dataset that is not trained on, by number: for losses and videos that can be compared over a run and between runs.

    Nothing is dropped, and the reference is the stored frame without noise, whatever ``recipe`` says for training.
    Raises :class:`UserError` as :class:`TrainingData` does.
    """

    def __init__(self, root: Path, recipe: Recipe) -> None:
        _check_recipe(recipe)
        making = _read_making(root, recipe)
        self.recipe = replace(recipe, reference=ReferenceConfig(), face_dropout=0.0, landmark_dropout=0.0)
        self._fields = needed_fields(self.recipe, making.backend)
        self._dataset = ShardedDataset(root, (*self._fields, "video.mp4"))
        if not len(self._dataset):
            raise UserError(f"{root} holds no sample to validate on; curate more footage, or leave it out")
        self._preparer = _preparer(self.recipe, making)
        self._shapes = _shapes(self._dataset, self.recipe)

    def __len__(self) -> int:
        """The number of samples."""
        return len(self._dataset)

    def prepared(self, numbers: Sequence[int], timestep: int) -> Prepared:
        """These samples with noise that belongs to clip and ``timestep``, the same in every run of one seed."""
        raw: dict[str, Any] = {"__key__": [self._dataset.key(number) for number in numbers]}
        raw |= {field: self._read(numbers, field) for field in self._fields}
        draws = draw_held_out(self.recipe.seed, raw["__key__"], timestep, self._shapes)
        return self._preparer(raw, draws)

    def frames(self, number: int) -> np.ndarray:
        """The pictures that a sample's latents were made of, uint8 [49, 480, 720, 3] RGB."""
        frames = decode_video(self._dataset.read_file(number, "video.mp4"))
        if self.recipe.data.layout == "ref1+48":
            frames[0] = frames[self._reference_frame(number)]
        return frames

    def reference(self, number: int) -> np.ndarray:
        """The reference frame of a sample, uint8 [480, 720, 3] RGB."""
        frames = decode_video(self._dataset.read_file(number, "video.mp4"))
        return np.asarray(frames[self._reference_frame(number)])

    def _reference_frame(self, number: int) -> int:
        return int(self._dataset.read_file(number, "meta.json")["reference_frame"])

    def _read(self, numbers: Sequence[int], field: str) -> torch.Tensor | list[Any]:
        if field not in self._dataset.arrays:
            return [self._dataset.read_file(number, field) for number in numbers]
        dtype, shape = self._dataset.arrays[field]
        values = torch.empty((len(numbers), *shape), dtype=dtype)
        for row, number in enumerate(numbers):
            self._dataset.read_into(number, field, values[row])
        return values


@dataclass(frozen=True)
class _Making:
    """How the landmarks of a dataset's layer were drawn."""

    backend: BackendName
    landmarks: RenderConfig


def _read_making(root: Path, recipe: Recipe) -> _Making:
    """Read the records of a dataset; :class:`UserError` unless its layer and face tokens are those of ``recipe``."""
    base = DatasetRecord.load(root)
    layer = LayerRecord.load(root, recipe.data.layer, base)
    if not {"layout", "codec_fingerprint"} <= layer.config.keys():
        raise UserError(
            f"layer {layer.layer!r} of {root} does not say how it was made; encode it again as another layer"
        )
    _check_codec(root, layer, recipe.codec)
    layout = layer.config["layout"]
    if layout != recipe.data.layout:
        raise UserError(
            f"layer {layer.layer!r} of {root} has the layout {layout}, and data.layout is {recipe.data.layout}; set it to "
            f"{layout}, or encode another layer with --set layout={recipe.data.layout} and name it in data.layer"
        )
    encoder = base.config.get("face", {}).get("encoder")
    if encoder != recipe.data.face_tokens:
        accept = "" if encoder not in ("siglip", "patches") else f"set data.face_tokens={encoder}, or "
        raise UserError(
            f"the face tokens of {root} are those of {encoder}, and data.face_tokens is {recipe.data.face_tokens}; "
            f"{accept}curate with face.encoder={recipe.data.face_tokens}"
        )
    return _Making(
        backend=base.config.get("landmarks", {}).get("backend", "mediapipe"),
        landmarks=RenderConfig.model_validate(layer.config["landmarks"]),
    )


def _check_codec(root: Path, layer: LayerRecord, codec: CodecConfig) -> None:
    made = layer.config["codec"]
    if made["codec"] != codec.codec:
        raise UserError(
            f"layer {layer.layer!r} of {root} was encoded with the codec {made['codec']}, and codec.codec is {codec.codec}; "
            f"set codec.codec={made['codec']}, or encode another layer with --set codec.codec={codec.codec} and name it in "
            "data.layer"
        )
    # The weights, wherever they lie here and lay there, as they were used for the layer.
    as_made = CodecConfig.model_validate({**codec.model_dump(), **made, "vae_model": codec.vae_model, "device": "cpu"})
    fingerprint = _fingerprint(as_made)
    if fingerprint != layer.config["codec_fingerprint"]:
        raise UserError(
            f"layer {layer.layer!r} of {root} was encoded with other weights (fingerprint "
            f"{layer.config['codec_fingerprint'][:12]}, from {made.get('vae_model')}) than those of codec.vae_model "
            f"{codec.vae_model} ({fingerprint[:12]}); name the same ones, or encode another layer"
        )


@functools.cache
def _fingerprint(codec: CodecConfig) -> str:
    """Loads the codec, which takes seconds: a run asks for each dataset in each stage."""
    return load_codec(codec).fingerprint


def _check_recipe(recipe: Recipe) -> None:
    if recipe.data.shrink > 1 and recipe.codec.codec != "pixels":
        raise UserError(
            f"data.shrink is {recipe.data.shrink}: means of the latents of codec {recipe.codec.codec} are no "
            "latents; leave it at 1, or take codec.codec=pixels"
        )
    if recipe.data.layout == "ref1+48" and recipe.reference.frame != "stored":
        raise UserError(
            f"data.layout ref1+48 has the stored reference in frame 0, and reference.frame is {recipe.reference.frame}; "
            "set reference.frame=stored, or take data.layout=contiguous49"
        )


def _preparer(recipe: Recipe, making: _Making) -> Preparer:
    backend: Backend | None = None
    if recipe.landmarks == "rendered":
        backend = load_backend(making.backend, "landmarks: rendered, in a stage")
    return Preparer(recipe, latent_scale(recipe.codec), making.landmarks, backend)


def _shapes(dataset: ShardedDataset, recipe: Recipe) -> Shapes:
    channels = dataset.arrays[f"{recipe.data.layer}/video_moments.safetensors"][1][0]
    return Shapes(
        latents=(LATENT_FRAMES, CHANNELS, *recipe.data.grid),
        posterior=channels > CHANNELS,
        pixels=(HEIGHT, WIDTH) if recipe.reference.noise else None,
    )
