"""The processes of a run, and the model spread over them.

Every collective of training goes through the default process group, which also exists for a single process, so that there is
one code path for 1 rank and for 256.
"""

import os
import socket
import time
import warnings
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore, PrefixStore, Store, TCPStore
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from faceloom.errors import UserError
from training.parallel_config import ParallelConfig
from training.state import parameter_name

Strategy = Literal["ddp", "fsdp"]

# Only for what heartbeats cannot see; a rank that hangs is named by them long before.
_COLLECTIVE_TIMEOUT = timedelta(hours=2)


@dataclass(frozen=True)
class World:
    """A process among all that train together."""

    rank: int
    world: int
    """How many ranks there are."""
    local_rank: int
    """Among those of this machine; it is the index of the GPU."""
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and prints for all."""
        return self.rank == 0


def start(config: ParallelConfig) -> World:
    """Meet the other ranks and prove that they can talk to each other. A collective call; :func:`finish` ends it.

    The ranks come from the environment of ``torchrun``, from a process group that is already there (Ray Train's), or, without
    either, this process is alone. GPUs talk by NCCL, host memory by gloo.

    Raises :class:`UserError` that names the ranks which did not come within ``init_timeout_s``, and where a machine has
    fewer GPUs than ranks.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = _device(local_rank)
    if not dist.is_initialized():
        _meet(device, config.init_timeout_s)
    rank, world = dist.get_rank(), dist.get_world_size()
    total = torch.tensor(rank + 1, device=device)
    try:
        dist.all_reduce(total)
    except RuntimeError as error:
        raise UserError(_unreachable(rank, world, config.init_timeout_s, error)) from error
    if total != world * (world + 1) // 2:
        raise UserError(f"the sum of 1 to {world} over the ranks is {total}: their network or their GPUs corrupt data")
    dist.set_timeout(_COLLECTIVE_TIMEOUT)
    return World(rank, world, local_rank, device)


def finish() -> None:
    """Leave the other ranks. Nothing may be on its way between them."""
    if dist.is_initialized():
        dist.destroy_process_group()


def parallelize(
    model: nn.Module,
    config: ParallelConfig,
    strategy: Strategy,
    world: World,
    dtype: torch.dtype,
    trained: Collection[str] = (),
) -> nn.Module:
    """``model``, whose blocks are ``model.transformer.transformer_blocks``, on the device of each rank of ``world``.

    Its parameters are fp32 and the same on all ranks; those to train have ``requires_grad``. ``trained`` names those that
    earlier stages trained: what they learned may be less than a bf16 can tell.

    - ``ddp`` holds the whole model on each rank: what is frozen and not in ``trained`` in ``dtype``, the rest in fp32, and
      computes under autocast.
    - ``fsdp`` spreads all parameters, in fp32, over the ranks (over each of ``config.replicas`` groups of them), gathers
      them block by block in ``dtype`` and reduces gradients in fp32.

    ``dtype`` float32 computes in fp32 throughout. The order is torchtitan's (``torchtitan/models/flux/parallelize.py``):
    activation checkpointing, compilation and sharding of each block, then the rest of the model.

    Raises :class:`UserError` if the ranks' weights differ and if they cannot be divided into ``config.replicas``.
    """
    _check_equal_weights(model, world)
    transformer = model.get_submodule("transformer")
    blocks = list(transformer.get_submodule("transformer_blocks").children())
    if config.activation_checkpointing:
        transformer.enable_gradient_checkpointing()  # type: ignore[operator]
    if config.compile:
        for block in blocks:
            block.compile(dynamic=False)
    if strategy == "ddp":
        return _replicate(model, world, dtype, trained)
    return _shard(model, blocks, config.replicas, world, dtype)


def accumulation(model: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Around forward and backward of a micro-batch; ``last`` of those whose gradients add up to one step.

    DDP sends its gradients with the last alone. FSDP reduces those of each micro-batch at once: keeping them for the last
    would take a whole model's gradients on every rank. Both end with the same mean over ranks.
    """
    if isinstance(model, DistributedDataParallel) and not last:
        return model.no_sync()
    return nullcontext()


def clip_grad_norm(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale the gradients of ``parameters`` so that their norm is at most ``max_norm``; returns the norm before, fp32 ``[]``.

    It is the norm of whole gradients, also where each rank has a shard of them: a collective call for ``fsdp``.
    """
    parameters = [p for p in parameters if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise UserError(
            f"{socket.gethostname()} has {torch.cuda.device_count()} GPUs, and none for its local rank {local_rank}; start "
            f"one rank a GPU: torchrun --nproc-per-node {torch.cuda.device_count()}"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def _meet(device: torch.device, timeout_s: float) -> None:
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    timeout = timedelta(seconds=timeout_s)
    if "RANK" not in os.environ:
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1, timeout=timeout)
        return
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    # torchrun keeps the store of its workers itself.
    serves = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        # Not torch's own rendezvous, which cannot say whom it waits for.
        store: Store = TCPStore(host, port, world, serves, timeout, wait_for_workers=False)
    except RuntimeError as error:
        raise UserError(f"rank {rank} found nobody at {host}:{port} within {timeout_s:g} s: {error}") from error
    # Restarted workers of torchrun find the store of their predecessors.
    store = PrefixStore(f"faceloom/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    try:
        _wait_for_all(store, rank, world, timeout_s)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)
    except RuntimeError as error:
        raise UserError(_unreachable(rank, world, timeout_s, error)) from error


def _wait_for_all(store: Store, rank: int, world: int, timeout_s: float) -> None:
    store.set(f"here/{rank}", socket.gethostname())
    keys = [f"here/{other}" for other in range(world)]
    deadline = time.monotonic() + timeout_s
    while not store.check(keys):
        if time.monotonic() > deadline:
            missing = [str(other) for other, key in enumerate(keys) if not store.check([key])]
            names = ", ".join(missing[:20]) + (" …" if len(missing) > 20 else "")
            raise UserError(
                f"of {world} ranks, {len(missing)} did not start within {timeout_s:g} s: {names}; see their own output, and "
                "start every node with the same --nnodes and --nproc-per-node (parallel.init_timeout_s sets the wait)"
            )
        time.sleep(0.1)


def _unreachable(rank: int, world: int, timeout_s: float, error: Exception) -> str:
    return (
        f"rank {rank} of {world}, on {socket.gethostname()}, cannot talk to the others (within {timeout_s:g} s): {error}; "
        "see whether a firewall is between the nodes, and name the network with NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME"
    )


def _check_equal_weights(model: nn.Module, world: World) -> None:
    """Compare the sums of the bits of each parameter; neither strategy would notice, and training would be of no model."""
    names = [name for name, _ in model.named_parameters()]
    sums = torch.stack([_sum_of_bits(p.detach()).to(world.device) for p in model.parameters()])
    least, most = sums.clone(), sums.clone()
    dist.all_reduce(least, dist.ReduceOp.MIN)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    different = [name for name, same in zip(names, (least == most).tolist(), strict=True) if not same]
    if different:
        raise UserError(
            f"the ranks start from different weights ({different[0]} and {len(different) - 1} more); "
            "give all nodes the same files in model.init, or a folder that they share"
        )


def _sum_of_bits(tensor: Tensor) -> Tensor:
    bits = tensor.reshape(-1)
    eights = bits.nbytes % 8 == 0 and bits.storage_offset() * bits.element_size() % 8 == 0
    # 8 bytes at a time, it is 25 times as fast, as no element is converted: 22 GB are to be summed.
    return bits.view(torch.int64 if eights else torch.uint8).sum(dtype=torch.int64)


def _replicate(model: nn.Module, world: World, dtype: torch.dtype, trained: Collection[str]) -> nn.Module:
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad and parameter_name(name) not in trained:
            parameter.data = parameter.data.to(dtype)
    if dtype != torch.float32:
        model.forward = torch.autocast(world.device.type, dtype)(model.forward)
    model.to(world.device)
    # The weights are equal already, and the frozen ones are gigabytes.
    return DistributedDataParallel(model, forward_sync_buffers=False, init_sync=False, gradient_as_bucket_view=True)


def _shard(model: nn.Module, blocks: list[nn.Module], replicas: int, world: World, dtype: torch.dtype) -> nn.Module:
    if world.world % replicas:
        raise UserError(
            f"parallel.replicas is {replicas}, which does not divide {world.world} ranks; set it to 1 or to the number of "
            "nodes"
        )
    if replicas == 1:
        mesh = init_device_mesh(world.device.type, (world.world,), mesh_dim_names=("shard",))
    else:
        shape = (replicas, world.world // replicas)
        mesh = init_device_mesh(world.device.type, shape, mesh_dim_names=("replicate", "shard"))
    # Inputs are cast at the root alone: at the blocks, the rotary embedding would lose its positions to bf16.
    precision = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=precision)
    fully_shard(model, mesh=mesh, mp_policy=MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32))
    model.to(world.device)
    # The model's last act is to fold tokens into a video, a view; the loss does not write to it.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    return model
