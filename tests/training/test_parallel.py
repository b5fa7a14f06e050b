import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from faceloom.errors import UserError
from tests.training.ranks import run_ranks
from training.parallel import Strategy, World, accumulation, clip_grad_norm, finish, parallelize, start
from training.parallel_config import ParallelConfig
from training.state import parameter_name

SAMPLES = 8
STEPS = 3
CLIP = 0.01
PLAIN = ParallelConfig(activation_checkpointing=False)


class TinyPortrait(nn.Module):
    """The shape of the portrait model: a projector of face tokens, and a CogVideoX transformer of two blocks."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.transformer = CogVideoXTransformer3DModel(
                num_attention_heads=2,
                attention_head_dim=8,
                in_channels=6,
                out_channels=2,
                time_embed_dim=8,
                text_embed_dim=12,
                num_layers=2,
                sample_width=4,
                sample_height=4,
                sample_frames=5,
                max_text_seq_length=3,
                use_rotary_positional_embeddings=True,
                use_learned_positional_embeddings=True,
            )
            self.face = nn.Sequential(nn.Linear(5, 7), nn.SiLU(), nn.Linear(7, 12))

    def forward(self, noisy: Tensor, timestep: Tensor, face_tokens: Tensor) -> Tensor:
        angles = torch.linspace(0, 3, 2 * 2 * 2 * 8).reshape(8, 8)
        rotary = (angles.cos(), angles.sin())
        return self.transformer(noisy, self.face(face_tokens), timestep, image_rotary_emb=rotary, return_dict=False)[0]


JOINT = re.compile(r"transformer\.transformer_blocks|face\.")
MOTION = re.compile(r"transformer\.patch_embed\.proj\.")


def tiny_model(trainable: re.Pattern[str], seed: int = 0) -> TinyPortrait:
    model = TinyPortrait(seed)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(bool(trainable.match(name)))
    return model


def samples() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "noisy": torch.randn(SAMPLES, 2, 6, 4, 4, generator=generator),
        "timestep": torch.arange(SAMPLES) * 100,
        "face_tokens": torch.randn(SAMPLES, 3, 5, generator=generator),
        "target": torch.randn(SAMPLES, 2, 2, 4, 4, generator=generator),
    }


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, world: World, micro: int, steps: int = STEPS
) -> tuple[list[float], list[float]]:
    """Losses of all samples, and gradient norms, of ``steps`` steps on the same global batch."""
    batch = samples()
    share = SAMPLES // world.world
    losses, norms = [], []
    for _ in range(steps):
        loss_sum = torch.zeros(())
        for first in range(0, share, micro):
            rows = slice(world.rank * share + first, world.rank * share + first + micro)
            with accumulation(model, last=first + micro == share):
                velocity = model(batch["noisy"][rows], batch["timestep"][rows], batch["face_tokens"][rows])
                loss = (velocity.float() - batch["target"][rows]).square().mean()
                (loss * micro / share).backward()
            loss_sum += loss.detach() * micro / SAMPLES
        torch.distributed.all_reduce(loss_sum)
        norms.append(float(clip_grad_norm(model.parameters(), CLIP)))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss_sum))
    return losses, norms


def whole_parameters(model: nn.Module) -> dict[str, Tensor]:
    whole = {}
    for name, parameter in model.named_parameters():
        value = parameter.detach()
        whole[parameter_name(name)] = value.full_tensor() if hasattr(value, "full_tensor") else value.clone()
    return whole


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)


def train_rank(
    strategy: Strategy, config: ParallelConfig, micro: int, trainable: re.Pattern[str], dtype: torch.dtype
) -> Any:
    world = start(config)
    model = parallelize(tiny_model(trainable), config, strategy, world, dtype)
    losses, norms = train(model, adam(model), world, micro)
    weights = whole_parameters(model)
    finish()
    return losses, norms, weights


def bare(trainable: re.Pattern[str] = JOINT) -> tuple[list[float], list[float], dict[str, Tensor]]:
    """The same training in one process, in one batch, with nothing around the model."""
    model, batch, losses, norms = tiny_model(trainable), samples(), [], []
    optimizer = adam(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    for _ in range(STEPS):
        velocity = model(batch["noisy"], batch["timestep"], batch["face_tokens"])
        loss = (velocity - batch["target"]).square().mean()
        loss.backward()
        norms.append(float(torch.sqrt(sum(p.grad.square().sum() for p in parameters))))
        for p in parameters:
            p.grad *= min(1.0, CLIP / norms[-1])
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses, norms, {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_trained_equally(result: Any, reference: Any, tolerance: float = 1e-5) -> None:
    assert result[0] == pytest.approx(reference[0], rel=tolerance)
    assert result[1] == pytest.approx(reference[1], rel=tolerance)
    for name, value in reference[2].items():
        torch.testing.assert_close(
            result[2][name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(
    ("world", "strategy", "micro"),
    [(1, "ddp", 8), (1, "fsdp", 4), (2, "ddp", 4), (2, "ddp", 1), (2, "fsdp", 1), (4, "ddp", 1), (4, "fsdp", 2)],
)
def test_any_number_of_ranks_trains_as_one_process_does(
    tmp_path: Path, world: int, strategy: Strategy, micro: int
) -> None:
    for result in run_ranks(tmp_path, world, train_rank, strategy, PLAIN, micro, JOINT, torch.float32):
        assert_trained_equally(result, bare())


def test_replicas_of_shards_train_as_one_process_does(tmp_path: Path) -> None:
    config = PLAIN.model_copy(update={"replicas": 2})
    for result in run_ranks(tmp_path, 4, train_rank, "fsdp", config, 1, JOINT, torch.float32):
        assert_trained_equally(result, bare())


def counting_rank(strategy: Strategy, config: ParallelConfig, micro: int) -> Any:
    """As :func:`train_rank`, with how often a block computed and how often DDP sent gradients."""
    world = start(config)
    tiny, counts = tiny_model(JOINT), {"forwards": 0, "reductions": 0}
    tiny.transformer.transformer_blocks[0].attn1.to_q.register_forward_hook(
        lambda *_: counts.update(forwards=counts["forwards"] + 1)
    )
    model = parallelize(tiny, config, strategy, world, torch.float32)
    if isinstance(model, nn.parallel.DistributedDataParallel):
        model.register_comm_hook(counts, count_reduction)
    losses, norms = train(model, adam(model), world, micro)
    weights = whole_parameters(model)
    finish()
    return losses, norms, weights, counts


def count_reduction(counts: dict[str, int], bucket: torch.distributed.GradBucket) -> torch.futures.Future[Tensor]:
    counts["reductions"] += bucket.is_last()
    return allreduce_hook(None, bucket)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_activation_checkpointing_computes_blocks_again_and_changes_nothing_else(
    tmp_path: Path, strategy: Strategy
) -> None:
    for result in run_ranks(tmp_path, 2, counting_rank, strategy, ParallelConfig(), 2):
        assert_trained_equally(result, bare())
        assert result[3]["forwards"] == STEPS * 2 * 2


def test_ddp_sends_its_gradients_once_a_step(tmp_path: Path) -> None:
    for result in run_ranks(tmp_path, 2, counting_rank, "ddp", PLAIN, 1):
        assert result[3] == {"forwards": STEPS * 4, "reductions": STEPS}


def mixed_rank(strategy: Strategy) -> Any:
    world = start(PLAIN)
    model = tiny_model(MOTION)
    block, seen = model.transformer.transformer_blocks[0], {}

    def look(_: nn.Module, __: tuple[Any, ...], given: dict[str, Any]) -> None:
        seen["hidden"] = given["hidden_states"].dtype
        seen["rotary"] = given["image_rotary_emb"][0].dtype
        seen["block weight"] = block.attn1.to_q.weight.dtype

    earlier = {"face.0.weight"}
    parallel = parallelize(model, PLAIN, strategy, world, torch.bfloat16, earlier)
    # After parallelize, so that it sees what the block itself is given.
    block.register_forward_pre_hook(look, with_kwargs=True)
    dtypes = {parameter_name(name): p.dtype for name, p in parallel.named_parameters()}
    optimizer = adam(parallel)
    optimizer.register_step_pre_hook(
        lambda *_: seen.update(gradient={p.grad.dtype for p in parallel.parameters() if p.grad is not None})
    )
    losses, _ = train(parallel, optimizer, world, 4)
    finish()
    return dtypes, seen, losses


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def mixed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run_ranks(tmp_path_factory.mktemp(request.param), 2, mixed_rank, request.param)[0]


def test_bf16_computes_in_bf16_and_keeps_what_is_trained_and_its_gradients_in_fp32(mixed: Any) -> None:
    dtypes, seen, losses = mixed
    assert dtypes["transformer.patch_embed.proj.weight"] == torch.float32
    assert seen["gradient"] == {torch.float32}
    assert seen["block weight"] == torch.bfloat16
    assert seen["hidden"] == torch.bfloat16
    assert losses == pytest.approx(bare(MOTION)[0], rel=2e-2)


def test_bf16_leaves_the_rotary_embedding_its_positions(mixed: Any) -> None:
    assert mixed[1]["rotary"] == torch.float32


def test_bf16_rounds_nothing_that_any_stage_has_trained(mixed: Any) -> None:
    fp32 = {name for name, dtype in mixed[0].items() if dtype == torch.float32}
    assert fp32 >= {"transformer.patch_embed.proj.weight", "transformer.patch_embed.proj.bias", "face.0.weight"}


@pytest.mark.parametrize("mixed", ["ddp"], indirect=True)
def test_ddp_holds_what_was_never_trained_in_bf16(mixed: Any) -> None:
    assert mixed[0]["face.0.bias"] == mixed[0]["transformer.proj_out.weight"] == torch.bfloat16


def compiled_rank(strategy: Strategy) -> Any:
    # Tracing alone is what can go wrong with wrappers; code for this CPU would take minutes to make.
    torch._dynamo.config.suppress_errors = False
    compile_inductor = torch.compile
    torch.compile = lambda model, **options: compile_inductor(model, backend="aot_eager", **options)
    return train_rank(strategy, ParallelConfig(compile=True), 2, JOINT, torch.float32)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_compiled_blocks_train_as_plain_ones_do(tmp_path: Path, strategy: Strategy) -> None:
    for result in run_ranks(tmp_path, 2, compiled_rank, strategy, timeout_s=300):
        assert_trained_equally(result, bare())


def different_weights_rank() -> str:
    world = start(PLAIN)
    try:
        parallelize(tiny_model(JOINT, seed=world.rank), PLAIN, "fsdp", world, torch.float32)
    except UserError as error:
        return str(error)
    return ""


def test_ranks_with_different_weights_are_refused(tmp_path: Path) -> None:
    for message in run_ranks(tmp_path, 2, different_weights_rank):
        assert "different weights" in message
        assert "model.init" in message


def one_bias_differs_rank() -> str:
    world = start(PLAIN)
    model = tiny_model(JOINT)
    if world.rank == 1:
        with torch.no_grad():
            model.face[0].bias[6] *= 1 + 2**-20
    try:
        parallelize(model, PLAIN, "ddp", world, torch.float32)
    except UserError as error:
        return str(error)
    return ""


def test_one_number_that_differs_is_enough_and_its_parameter_is_named(tmp_path: Path) -> None:
    # Of 7 numbers, which are no multiple of 8 bytes.
    for message in run_ranks(tmp_path, 2, one_bias_differs_rank):
        assert "(face.0.bias and 0 more)" in message


def three_replicas_rank() -> str:
    world = start(PLAIN)
    try:
        config = PLAIN.model_copy(update={"replicas": 3})
        parallelize(tiny_model(JOINT), config, "fsdp", world, torch.float32)
    except UserError as error:
        return str(error)
    return ""


def test_replicas_that_do_not_divide_the_ranks_are_refused(tmp_path: Path) -> None:
    assert "parallel.replicas is 3" in run_ranks(tmp_path, 2, three_replicas_rank)[0]


def one_rank_missing() -> str:
    if os.environ["RANK"] == "1":
        return ""
    try:
        start(ParallelConfig(init_timeout_s=1))
    except UserError as error:
        return str(error)
    return ""


def test_a_rank_that_does_not_come_is_named(tmp_path: Path) -> None:
    message = run_ranks(tmp_path, 3, one_rank_missing, timeout_s=60)[0]
    assert re.search(r"of 3 ranks, 1 did not start within 1 s: 1;", message)


def alone() -> World:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        del os.environ[name]
    return start(PLAIN)


def test_a_process_without_a_launcher_is_a_world_of_its_own(tmp_path: Path) -> None:
    assert run_ranks(tmp_path, 1, alone) == [World(0, 1, 0, torch.device("cpu"))]


def test_the_names_of_parameters_are_those_of_the_bare_model() -> None:
    assert parameter_name(
        "module.transformer.transformer_blocks.1._checkpoint_wrapped_module._orig_mod.ff.net.2.bias"
    ) == ("transformer.transformer_blocks.1.ff.net.2.bias")
