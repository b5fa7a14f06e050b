"""Everything that can be known to be wrong before any work is done, and the plan of a run."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from curation.config import CurationConfig, PoolConfig, RunConfig
from curation.faces import MTCNN_FILES
from curation.identity import face_encoder
from curation.ledger import committed
from curation.motion import inside_noise
from curation.recognition import MODEL_KEY, NETWORKS
from curation.sources import Clip, Manifest, open_manifest
from curation.weights import face_weights, flow_weights
from faceloom import __version__
from faceloom.config import differences
from faceloom.errors import UserError
from faceloom.fingerprint import fingerprint
from faceloom.location import is_remote, location
from faceloom.models import file_sha256, model_path, sha256_of, user_path
from faceloom.workers import fits, refuse_unreserved_gpu
from landmarks.smirk_backend import load_smirk
from shards.dataset import RECORD_NAME, DatasetRecord, ManifestSummary, ledger_path
from shards.schema import FACE_DIM, FACE_TOKENS
from shards.storage import make_folder, parquet_sources, write_atomic

SAMPLE_MIB = 4
"""What a finished sample weighs, tokens included; only the admission of clips rests on it."""
_PROBED_FILES = 20


@dataclass(frozen=True)
class Plan:
    """A run that may start: what it will decide, under which identity, and what of it is already done."""

    config: CurationConfig
    manifest: Manifest
    out: Path
    limit: int | None
    all_statistics: bool
    record: DatasetRecord
    done: frozenset[int]

    @property
    def blocks_left(self) -> int:
        """Manifest blocks without a ledger fragment."""
        return self.record.manifest.blocks - len(self.done)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.record.complete and self.blocks_left == 0


def prepare(
    config: CurationConfig, manifest_path: Path, out: Path, limit: int | None = None, all_statistics: bool = False
) -> Plan:
    """Check manifest, models and output, and compare with what ``out`` already holds.

    Raises :class:`UserError` that names what is wrong and the remedy: an unusable manifest, a missing model, an output folder
    that cannot be written or that belongs to another run.
    """
    manifest = open_manifest(manifest_path)
    _refuse_absent_footage(manifest)
    for name, wanted_by in (face_weights(config) | flow_weights(config)).items():
        model_path(name, wanted_by)
    for section, device in (("flow", config.flow.device), ("face", config.face.device)):
        refuse_unreserved_gpu(device, config.run.flow.gpus, device_key=f"{section}.device", gpus_key="run.flow.gpus")
    clips = manifest.clips if limit is None else min(limit, manifest.clips)
    block = config.run.block_clips
    prints = _fingerprints(config)
    decided = config.model_dump(mode="json")
    # Where and how widely a run is spread does not change what it writes.
    decided.pop("storage")
    decided["run"] = {"block_clips": block, "all_statistics": all_statistics}
    for section in ("flow", "face"):
        decided[section].pop("device")
    record = DatasetRecord(
        complete=False,
        config=decided,
        config_fingerprint=fingerprint(config=decided, fields=prints),
        fingerprints=prints,
        licences=_licences(manifest, clips),
        manifest=ManifestSummary(sha256=manifest.sha256, clips=clips, blocks=-(-clips // block), block_clips=block),
    )
    _check_writable(out)
    done = frozenset(committed(out, record.manifest.blocks))
    before = _record_of(out)
    if before is not None:
        _refuse_other_run(before, record, out)
        record = record.model_copy(update={"complete": before.complete})
    for fragment, source in parquet_sources([ledger_path(out, part) for part in sorted(done)]):
        _refuse_foreign_fragment(fragment, source, record)
    return Plan(config, manifest, out, limit, all_statistics, record, done)


@dataclass(frozen=True)
class PoolSizes:
    """Workers of each pool."""

    face: int
    flow: int


def pool_sizes(run: RunConfig, resources: Mapping[str, float]) -> PoolSizes:
    """How many workers of each pool a cluster with ``resources`` (Ray's totals: CPU, GPU, ...) has room for.

    A flow pool on GPUs is as large as these allow, and the face pool takes the CPUs that are left; on CPUs alone the two
    share them. Workers that are asked for by number wait for nodes to come. Raises :class:`UserError` that names the missing
    resource when there is no room for one worker of a pool whose number is left to the cluster.
    """
    if not (run.face.workers and run.flow.workers):
        _refuse_small_cluster(run, resources)
    cpus = resources.get("CPU", 0.0)
    for_face = max(1, run.face.workers) * run.face.cpus
    if run.flow.workers:
        flow = run.flow.workers
    elif run.flow.gpus:
        flow = min(fits(resources["GPU"], run.flow.gpus), fits(cpus - for_face, run.flow.cpus))
    elif run.face.workers:
        flow = fits(cpus - for_face, run.flow.cpus)
    else:
        flow = fits(cpus, run.face.cpus + run.flow.cpus)
    flow = max(1, min(flow, _placed(run.flow, resources)))
    face = fits(cpus - flow * run.flow.cpus, run.face.cpus)
    return PoolSizes(face=run.face.workers or max(1, min(face, _placed(run.face, resources))), flow=flow)


def _placed(pool: PoolConfig, resources: Mapping[str, float]) -> int:
    """How many workers the pool's further resources allow."""
    if pool.workers:
        return pool.workers
    return min((fits(resources[kind], amount) for kind, amount in pool.resources.items() if amount), default=2**31)


def _refuse_small_cluster(run: RunConfig, resources: Mapping[str, float]) -> None:
    needed = Counter(run.face.needs)
    needed.update(run.flow.needs)
    lacking = {kind: amount for kind, amount in needed.items() if resources.get(kind, 0.0) < amount}
    if lacking:
        missing = ", ".join(
            f"{amount:g} {kind}, and the cluster has {resources.get(kind, 0.0):g}" for kind, amount in lacking.items()
        )
        raise UserError(
            f"a face worker and a flow worker together need {missing}; lower run.face and run.flow (cpus, gpus, resources), "
            "add nodes, or set run.face.workers and run.flow.workers to wait for nodes that are to come"
        )


def advice(config: CurationConfig, resources: Mapping[str, float]) -> list[str]:
    """What to tell a user before a run that nothing stands against: one sentence each."""
    return [*filter(None, [idle_gpus(config, resources), large_block(config)]), *inside_noise(config.motion)]


def large_block(config: CurationConfig) -> str | None:
    """What to tell a user whose blocks may outgrow the memory for samples, which one block alone always may; else None."""
    run, most = config.run, config.window.most
    mib = run.block_clips * most * SAMPLE_MIB
    if mib <= run.held_mib:
        return None
    return (
        f"a block of {run.block_clips} clips with up to {most} samples each may come to {mib} MiB, and run.held_mib is "
        f"{run.held_mib}; lower run.block_clips to {max(1, run.held_mib // (most * SAMPLE_MIB))}"
    )


def idle_gpus(config: CurationConfig, resources: Mapping[str, float]) -> str | None:
    """What to tell a user whose cluster has GPUs that this configuration leaves idle; None when it does not."""
    if resources.get("GPU", 0.0) and not config.run.flow.gpus and config.flow.device != "cpu":
        return "the cluster has GPUs, but run.flow.gpus is 0: optical flow runs on CPUs; use them with --set run.flow.gpus=1"
    return None


def _fingerprints(config: CurationConfig) -> dict[str, str]:
    """One hash a group of fields, over what decides them: version, configuration, weights."""
    sections = config.model_dump(mode="json")
    deciding = (
        "video",
        "shots",
        "continuity",
        "census",
        "character",
        "bystanders",
        "inset",
        "occlusion",
        "identity_check",
        "quality",
        "window",
        "motion",
        "crop",
        "sample_video",
    )
    choice = {name: sections[name] for name in deciding}
    landmarker = sha256_of("face_landmarker")
    detector = [sha256_of(name) for name in MTCNN_FILES] if config.census.detector != "blazeface" else []
    network = NETWORKS.get(config.identity_check.model)
    recogniser = None if network is None else file_sha256(user_path(network.file, MODEL_KEY))
    smirk = load_smirk("landmarks.backend").fingerprint if config.landmarks.backend == "smirk" else None
    flow = {key: value for key, value in sections["flow"].items() if key != "device"}
    # On the CPU: the driver reserves no GPU, and may have none.
    encoder = face_encoder(config.face.model_copy(update={"device": "cpu"}))
    if encoder is not None and encoder.shape != (FACE_TOKENS, FACE_DIM):
        raise UserError(
            f"face.siglip_model: {config.face.siglip_model!r} gives tokens of {list(encoder.shape)}, the projector takes "
            f"{[FACE_TOKENS, FACE_DIM]}; use google/siglip-so400m-patch14-384"
        )
    tokens = {"face_tokens": encoder.fingerprint} if encoder is not None else {}
    return {
        "video": fingerprint(
            version=__version__, choice=choice, face_landmarker=landmarker, detector=detector, recogniser=recogniser
        ),
        "landmarks": fingerprint(
            version=__version__, census=sections["census"], face_landmarker=landmarker, smirk=smirk
        ),
        "flow": fingerprint(version=__version__, flow=flow, weights=sha256_of(config.flow.model)),
        "face": fingerprint(version=__version__, template="facexlib-512", face_landmarker=landmarker),
        **tokens,
    }


def _licences(manifest: Manifest, clips: int) -> tuple[str, ...]:
    found: set[str] = set()
    with pq.ParquetFile(manifest.file) as file:
        for batch in file.iter_batches(columns=["licence"]):
            found.update(batch["licence"].slice(0, clips).unique().to_pylist())
            clips -= min(clips, len(batch))
    return tuple(sorted(found))


def _refuse_absent_footage(manifest: Manifest) -> None:
    first: list[Clip] = list(islice((c for block in manifest.blocks(_PROBED_FILES) for c in block), _PROBED_FILES))
    if not any(_exists(clip.path) for clip in first):
        raise UserError(
            f"none of the first {len(first)} files of {manifest.path} exist here, such as {first[0].path}; "
            "mount the footage, or make the manifest again with: faceloom ingest"
        )


def _exists(path: str) -> bool:
    where = location(path)
    # Path.exists raises on a closed folder; a storage that refuses is heard of here rather than by the workers.
    return where.exists() if is_remote(where) else os.path.exists(where)  # noqa: PTH110


def _check_writable(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; name a folder")
    try:
        make_folder(out)
        probe = out / ".faceloom-write-probe"
        write_atomic(probe, b"")
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"cannot write to --out {out}: {error.strerror}; choose another folder or mend its rights"
        ) from None


def _record_of(out: Path) -> DatasetRecord | None:
    if not (out / RECORD_NAME).exists():
        return None
    return DatasetRecord.load(out)


def _refuse_other_run(before: DatasetRecord, now: DatasetRecord, out: Path) -> None:
    old, new = before.manifest.model_dump(), now.manifest.model_dump()
    changes = [*differences(before.config, now.config), *differences(old, new, "manifest")]
    if not changes:
        changes = differences(before.fingerprints, now.fingerprints, "made by (version, weights)")
    if changes:
        raise UserError(
            f"{out} belongs to another run; name another --out, or undo the change:\n"
            + "\n".join(f"  {c}" for c in changes)
        )


def _refuse_foreign_fragment(fragment: Path, source: Path | BinaryIO, record: DatasetRecord) -> None:
    try:
        metadata = pq.read_schema(source).metadata or {}
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{fragment} cannot be read ({reason}); delete it, and the same command decides its clips again"
        ) from None
    made_by = metadata.get(b"run", b"").decode()
    if made_by != record.config_fingerprint:
        raise UserError(
            f"{fragment} was written by a run with another configuration ({made_by[:12]}, this is "
            f"{record.config_fingerprint[:12]}); name another --out"
        )
