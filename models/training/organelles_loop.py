"""The training of organelle networks: checkpoints that are kept and validated, and a run that goes on exactly.

State is written at every checkpoint and when the run is interrupted (Ctrl-C). What was interrupted and gone on with
equals what ran through, bit for bit on a processor, since blocks follow from the iteration's number.
"""

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from models.training.loop import Say, TrainingError
from models.training.organelles_data import Block, Blocks
from models.training.organelles_network import OrganelleNet
from models.training.organelles_protocol import FitRegime, balanced_loss, finite, fit_regime, overlap_loss
from models.training.organelles_recipe import OrganelleRecipe

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint's weights measured.

    Attributes
    ----------
    iteration
        After which it was written.
    training
        Mean loss since the checkpoint before.
    validation
        Loss on the held-out blocks, by volume.
    """

    iteration: int
    training: float
    validation: dict[str, float]

    @property
    def mean(self) -> float:
        """Mean validation loss over volumes; the training loss where nothing is held out."""
        return float(np.mean(list(self.validation.values()))) if self.validation else self.training


@dataclass(frozen=True, slots=True)
class Run:
    """A finished training.

    Attributes
    ----------
    folder
        Where its checkpoints are.
    checkpoints
        In order.
    regime
        Which of them fit.
    seconds
        Processor seconds of this process.
    """

    folder: Path
    checkpoints: tuple[Checkpoint, ...]
    regime: FitRegime
    seconds: float

    def weights(self, number: int) -> Path:
        """File of a checkpoint's weights."""
        return weights_file(self.folder, self.checkpoints[number].iteration)


def weights_file(folder: Path, iteration: int) -> Path:
    """Where the weights after ``iteration`` are kept."""
    return folder / "checkpoints" / f"{iteration:07d}.pt"


def best_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def identity(recipe: OrganelleRecipe, seed: int, start: str) -> str:
    """What a run is: a folder that holds another one is not gone on with. Its length may change."""
    same = msgspec.structs.replace(recipe, finetuning=type(recipe.finetuning)())
    return hashlib.sha256(msgspec.json.encode([same, seed, start])).hexdigest()[:16]


def rate(iteration: int, recipe: OrganelleRecipe, iterations: int) -> float:
    """Learning rate of an iteration."""
    how = recipe.optimisation
    if how.schedule == "constant":
        return how.learning_rate
    rise = max(1, iterations // 20)
    if iteration < rise:
        return how.learning_rate * (iteration + 1) / rise
    done = min(1.0, (iteration - rise) / max(1, iterations - rise))
    return how.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def history(folder: Path) -> list[Checkpoint]:
    """Checkpoints of a training, in order.

    Raises
    ------
    TrainingError
        When the folder holds none.
    """
    kept = folder / "state.pt"
    if not kept.exists():
        raise TrainingError(f"{folder}: holds no training (no state.pt)")
    text = torch.load(kept, weights_only=True, map_location="cpu")["checkpoints"]
    return msgspec.json.decode(text, type=list[Checkpoint])


class _State:
    """What changes while a network learns."""

    def __init__(self, network: OrganelleNet, recipe: OrganelleRecipe, device: torch.device) -> None:
        how = recipe.optimisation
        self.network = network.to(device)
        self.optimiser = torch.optim.Adam(network.parameters(), lr=how.learning_rate, weight_decay=how.weight_decay)
        self.scaler = torch.amp.GradScaler(device.type, enabled=how.precision == "fp16" and device.type == "cuda")
        self.iteration = 0
        self.recent: list[float] = []
        self.checkpoints: list[Checkpoint] = []

    def save(self, path: Path, identity: str) -> None:
        fresh = path.with_suffix(".part")
        torch.save(
            {
                "identity": identity,
                "network": self.network.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "scaler": self.scaler.state_dict(),
                "iteration": self.iteration,
                "recent": self.recent,
                "checkpoints": msgspec.json.encode(self.checkpoints).decode(),
            },
            fresh,
        )
        fresh.replace(path)

    def load(self, path: Path, identity: str, device: torch.device) -> None:
        kept: dict[str, Any] = torch.load(path, weights_only=True, map_location=device)
        if kept["identity"] != identity:
            raise TrainingError(
                f"{path.parent} holds a training with another recipe, seed or start: choose another --out, or empty it"
            )
        self.network.load_state_dict(kept["network"])
        self.optimiser.load_state_dict(kept["optimiser"])
        self.scaler.load_state_dict(kept["scaler"])
        self.iteration, self.recent = int(kept["iteration"]), [float(v) for v in kept["recent"]]
        self.checkpoints = msgspec.json.decode(kept["checkpoints"], type=list[Checkpoint])


def train(
    network: OrganelleNet,
    blocks: Blocks,
    held_out: Mapping[str, Sequence[Block]],
    recipe: OrganelleRecipe,
    folder: Path,
    *,
    iterations: int | None = None,
    stop_after: int | None = None,
    start: str = "",
    device: torch.device | None = None,
    say: Say = print,
) -> Run:
    """Learn, validate every checkpoint, and say which of them fit.

    Parameters
    ----------
    network
        Network to learn; its weights change.
    blocks
        What it learns from.
    held_out
        Blocks to validate on, by volume; those that were not learned from.
    recipe
        The protocol.
    folder
        For state and checkpoints; a run that is there is gone on with.
    iterations
        In the place of the recipe's.
    stop_after
        Iteration after which to stop as if interrupted.
    start
        What the weights began as, such as the file of other weights.
    device
        By default a GPU where there is one.
    say
        Where lines for a person go.

    Raises
    ------
    TrainingError
        When the loss is not a number, or the folder holds another run.
    """
    device = device or best_device()
    how, check = recipe.optimisation, recipe.validation
    total = iterations or how.iterations
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    state, kept, who = _State(network, recipe, device), folder / "state.pt", identity(recipe, blocks.seed, start)
    if kept.exists():
        state.load(kept, who, device)
        say(f"going on from iteration {state.iteration} of {total} ({kept})")
    begun, first = time.monotonic(), state.iteration
    used = time.process_time()
    try:
        while state.iteration < total:
            _step(state, blocks.batch(state.iteration).to(device), recipe, total, device)
            if state.iteration % check.every == 0 or state.iteration == total:
                one = Checkpoint(
                    iteration=state.iteration,
                    training=float(np.mean(state.recent)),
                    validation={name: validate(network, some, recipe, device) for name, some in held_out.items()},
                )
                state.checkpoints.append(one)
                state.recent = []
                torch.save(network.state_dict(), weights_file(folder, state.iteration))
                state.save(kept, who)
                say(_line(one, total, (time.monotonic() - begun) / (state.iteration - first)))
            if stop_after is not None and state.iteration >= stop_after:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        state.save(kept, who)
        raise TrainingError(
            f"interrupted after iteration {state.iteration} of {total}; the same command goes on from there"
        ) from None
    if not state.checkpoints:
        raise TrainingError("no iteration to run: give --iterations of at least 1")
    window = max(1, check.window // check.every)
    regime = fit_regime([c.mean for c in state.checkpoints], window, check.stable)
    network.eval()
    return Run(folder, tuple(state.checkpoints), regime, time.process_time() - used)


def _step(state: _State, block: Block, recipe: OrganelleRecipe, total: int, device: torch.device) -> None:
    how = recipe.optimisation
    state.network.train()
    for group in state.optimiser.param_groups:
        group["lr"] = rate(state.iteration, recipe, total)
    with torch.autocast(device.type, DTYPES.get(how.precision, torch.bfloat16), enabled=how.precision != "fp32"):
        logits = state.network.logits(block.volume)
    loss = loss_of(logits.float(), block, recipe)
    if not finite(loss):
        raise TrainingError(
            f"loss at iteration {state.iteration} is {float(loss)}: lower learning_rate ({how.learning_rate:g})"
            f" or use precision fp32 ({how.precision})"
        )
    state.optimiser.zero_grad(set_to_none=True)
    state.scaler.scale(loss).backward()
    if how.norm > 0:
        state.scaler.unscale_(state.optimiser)
        torch.nn.utils.clip_grad_norm_(state.network.parameters(), how.norm)
    state.scaler.step(state.optimiser)
    state.scaler.update()
    state.recent.append(float(loss.detach()))
    state.iteration += 1


def loss_of(logits: Tensor, block: Block, recipe: OrganelleRecipe) -> Tensor:
    """What is made small: balanced cross-entropy, and overlap where the recipe says so."""
    how = recipe.optimisation
    loss = balanced_loss(logits, block.truth, block.mask, how.clip)
    return loss + how.overlap * overlap_loss(logits, block.truth, block.mask) if how.overlap > 0 else loss


def validate(network: OrganelleNet, some: Sequence[Block], recipe: OrganelleRecipe, device: torch.device) -> float:
    """Mean loss of a network on blocks as they are."""
    how = recipe.optimisation
    losses = []
    network.eval()
    with torch.no_grad():
        for block in some:
            block = block.to(device)
            with torch.autocast(
                device.type, DTYPES.get(how.precision, torch.bfloat16), enabled=how.precision != "fp32"
            ):
                logits = network.logits(block.volume)
            losses.append(float(loss_of(logits.float(), block, recipe)))
    return float(np.mean(losses))


def _line(one: Checkpoint, total: int, each_s: float) -> str:
    parts = "  ".join(f"{name} {loss:.4f}" for name, loss in one.validation.items())
    left = (total - one.iteration) * each_s
    ahead = f"{left / 3600:.1f} h" if left > 5400 else f"{left / 60:.0f} min"
    return f"iteration {one.iteration}/{total}  training {one.training:.4f}  {parts}  {ahead} left"
