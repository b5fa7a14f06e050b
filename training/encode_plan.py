"""What ``faceloom encode`` will do, and everything that can be known to be wrong before it does it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from faceloom import __version__
from faceloom.config import differences
from faceloom.errors import UserError
from faceloom.fingerprint import fingerprint
from faceloom.workers import pool_size as size_of
from faceloom.workers import refuse_unreserved_gpu
from landmarks.backend import BackendName, backend_fingerprint
from shards.dataset import DatasetRecord, LayerFile, index_path, tar_path
from shards.index import DamageError, Entry, read_index, read_layer_file
from shards.layers import LayerRecord, layer_ledger_path, layer_record_path
from shards.schema import BASE_LAYER, LATENT_FRAMES, LATENT_HEIGHT, LATENT_WIDTH, LATENTS_LAYER, LAYER_NAME
from training.codec import load_codec
from training.encode_config import EncodeConfig, EncodeRunConfig
from training.encode_ledger import fragment_run
from training.encoder import SOURCE_FIELDS, BaseSample
from training.latents import CHANNELS


@dataclass(frozen=True)
class EncodePlan:
    """A run that may start: what it encodes from which base, and what of it is already done."""

    config: EncodeConfig
    dataset: Path
    base: DatasetRecord
    record: LayerRecord
    backend: BackendName
    codec_fingerprint: str
    sample_nbytes: int
    """Of the latents of one sample."""
    done: frozenset[int]

    @property
    def parts(self) -> range:
        """The parts of the base, each of which becomes one of the layer."""
        return range(self.base.manifest.blocks)

    @property
    def samples(self) -> int:
        """How many samples the base has."""
        return sum(file.samples for file in _base_files(self.base).values())

    @property
    def samples_done(self) -> int:
        """How many of them are in parts that are done."""
        files = _base_files(self.base)
        return sum(files[part].samples for part in self.done)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.record.complete and len(self.done) == len(self.parts)

    def blocks_left(self) -> Iterator[tuple[int, list[BaseSample]]]:
        """The samples of each part that is not done, from the index of the base.

        Raises :class:`UserError` if an index is not the one that ``dataset.json`` lists.
        """
        files = _base_files(self.base)
        for part in self.parts:
            if part not in self.done:
                yield part, _samples(self.dataset, files[part])


def prepare(config: EncodeConfig, dataset: Path, layer: str = LATENTS_LAYER) -> EncodePlan:
    """Check base, codec and models, and compare with what ``dataset`` already holds of ``layer``.

    Raises :class:`UserError` that names what is wrong and the remedy: an unfinished base, a missing model, a layer of that
    name that was made otherwise.
    """
    _check_name(layer)
    base = DatasetRecord.load(dataset)
    if not base.complete:
        raise UserError(f"{dataset} is unfinished; finish it first with the `faceloom curate` command that began it")
    refuse_unreserved_gpu(config.codec.device, config.run.gpus, device_key="codec.device", gpus_key="run.gpus")
    backend: BackendName = base.config.get("landmarks", {}).get("backend", "mediapipe")
    # On the CPU: the driver reserves no GPU, and may have none.
    codec = load_codec(config.codec.model_copy(update={"device": "cpu"}))
    record = LayerRecord(
        layer=layer,
        complete=False,
        config=config.deciding | {"codec_fingerprint": codec.fingerprint},
        fingerprint=fingerprint(
            version=__version__,
            codec=codec.fingerprint,
            landmarks=config.landmarks.model_dump(mode="json"),
            layout=config.layout,
            backend=backend_fingerprint(backend, f"{dataset} (landmarks.backend)"),
            run=config.deciding.get("run"),
        ),
        base=base.checksum,
    )
    if layer_record_path(dataset, layer).exists():
        before = LayerRecord.load(dataset, layer, base)
        _refuse_other_layer(before, record)
        record = record.model_copy(
            update={"complete": before.complete, "shards": before.shards, "ledger": before.ledger}
        )
    done = frozenset(p for p in range(base.manifest.blocks) if layer_ledger_path(dataset, layer, p).is_file())
    cells = (codec.moment_channels + CHANNELS) * LATENT_FRAMES + codec.moment_channels
    plan = EncodePlan(
        config=config,
        dataset=dataset,
        base=base,
        record=record,
        backend=backend,
        codec_fingerprint=codec.fingerprint,
        sample_nbytes=2 * cells * LATENT_HEIGHT * LATENT_WIDTH,
        done=done,
    )
    for part in sorted(done):
        if fragment_run(dataset, layer, part) != plan.record.run:
            raise UserError(
                f"{layer_ledger_path(dataset, layer, part)} was written for a layer made otherwise; encode into a layer of "
                f"another name: --layer {LATENTS_LAYER}-NAME"
            )
    return plan


def pool_size(run: EncodeRunConfig, resources: Mapping[str, float]) -> int:
    """How many encoders a cluster with ``resources`` has room for; see :func:`faceloom.workers.pool_size`."""
    return size_of(run, resources, worker="an encoder", section="run")


def layer_files(plan: EncodePlan) -> tuple[LayerFile, ...]:
    """The tars of the layer as its record lists them; all must be on disk. Raises :class:`UserError` otherwise."""
    layer, files = plan.record.layer, []
    for part in plan.parts:
        try:
            files.append(read_layer_file(plan.dataset, part, layer))
            tar = tar_path(plan.dataset, part, layer)
            if not tar.is_file() or tar.stat().st_size != files[-1].bytes:
                raise DamageError(f"{tar} is missing or cut short")
        except DamageError as error:
            fragment = layer_ledger_path(plan.dataset, layer, part)
            raise UserError(f"{error}; delete {fragment} and run the same command again") from None
    return tuple(files)


def _base_files(base: DatasetRecord) -> dict[int, LayerFile]:
    return {file.part: file for file in base.shards if file.layer == BASE_LAYER}


def _samples(dataset: Path, file: LayerFile) -> list[BaseSample]:
    path = index_path(dataset, file.part)
    try:
        if read_layer_file(dataset, file.part) != file:
            raise DamageError(f"{path}: damaged index: it is not the one that dataset.json lists")
        index = read_index(path)
    except (DamageError, OSError) as error:
        raise UserError(f"{error}; see what else is damaged with: faceloom verify {dataset}") from None
    entries: dict[str, list[Entry]] = {}
    for entry in index.entries:
        if entry.field in SOURCE_FIELDS:
            entries.setdefault(entry.key, []).append(entry)
    return [BaseSample(file.part, key, tuple(found)) for key, found in entries.items()]


def _check_name(layer: str) -> None:
    if not LAYER_NAME.fullmatch(layer) or layer.partition("-")[0] != LATENTS_LAYER:
        raise UserError(
            f"--layer {layer!r}: a layer of latents is called {LATENTS_LAYER}, or {LATENTS_LAYER}-NAME with NAME of "
            "a-z, 0-9, _ and -"
        )


def _refuse_other_layer(before: LayerRecord, now: LayerRecord) -> None:
    if before.fingerprint == now.fingerprint:
        return
    changes = differences(before.config, now.config)
    changes += differences(before.fingerprint, now.fingerprint, "fingerprint (version, configuration, weights)")
    raise UserError(
        f"layer {now.layer!r} was made otherwise; encode into a layer of another name with --layer {LATENTS_LAYER}-NAME, or "
        "undo the change:\n" + "\n".join(f"  {change}" for change in changes)
    )
