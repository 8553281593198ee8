"""The training loop that every family shares: seeded, averaged, resumable.

Batches are a function of the step's number, so a run that was interrupted goes on with the batches that it would
have seen, and two runs with one seed see the same ones.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Batch = TypeVar("Batch")
Recipe = TypeVar("Recipe", bound=msgspec.Struct)
Say = Callable[[str], None]


class TrainingError(RuntimeError):
    """A training that cannot go on, and why."""


class LoopSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long and how fast to learn.

    Attributes
    ----------
    steps
        Batches to learn from.
    learning_rate
        Peak of the schedule: a linear rise over ``warmup`` of the steps, then a cosine down to a hundredth.
    weight_decay
        Of AdamW, on weights with more than one dimension.
    averaging
        Share of the running average of the weights that each step keeps; 0 exports the last weights themselves.
    clip
        Largest norm of the gradient.
    stop_after
        Step after which to stop before the schedule's end; 0: never.
    report_every, save_every
        Steps between two lines, and between two checkpoints.
    """

    steps: int = 1000
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warmup: float = 0.05
    averaging: float = 0.995
    clip: float = 1.0
    stop_after: int = 0
    report_every: int = 50
    save_every: int = 200


@dataclass(frozen=True, slots=True)
class History:
    """What a training was: mean loss of each report, as (step, loss), and the seconds that it took."""

    losses: tuple[tuple[int, float], ...] = ()
    seconds: float = 0.0
    checks: tuple[tuple[int, dict[str, float]], ...] = field(default_factory=tuple)


def seeded(seed: int) -> None:
    """Make everything random from here on follow from ``seed``; call it before the network is built."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)


def load_recipe(path: Path | None, kind: type[Recipe]) -> Recipe:
    """Recipe of ``kind`` from a YAML file; its defaults without a file.

    Raises
    ------
    TrainingError
        When the file cannot be read, or a key or value in it is not one of the recipe's.
    """
    if path is None:
        return kind()
    try:
        return msgspec.yaml.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise TrainingError(f"{path}: {error}") from error


def schedule(step: int, settings: LoopSettings) -> float:
    """Share of the peak learning rate at ``step``."""
    rise = max(1, round(settings.warmup * settings.steps))
    if step < rise:
        return (step + 1) / rise
    done = (step - rise) / max(1, settings.steps - rise)
    return float(0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * min(done, 1.0))))


def train(
    network: nn.Module,
    batch_of: Callable[[int], Batch],
    loss_of: Callable[[nn.Module, Batch], Tensor],
    settings: LoopSettings,
    *,
    slow: dict[str, float] | None = None,
    check: Callable[[nn.Module], dict[str, float]] | None = None,
    checkpoint: Path | None = None,
    say: Say = print,
) -> tuple[nn.Module, History]:
    """Learned network, in evaluation mode, and how it came about.

    Parameters
    ----------
    network
        Network to learn; its weights change.
    batch_of
        Batch of a step, by its number alone.
    loss_of
        Loss of a network on a batch, a scalar.
    settings
        How long and how fast.
    slow
        Learning rates of single parameters, by name, in the place of the schedule's (no decay for these).
    check
        Figures of a network that are worth a line at each checkpoint.
    checkpoint
        File that holds the state of a run; one that is there is gone on from, and deleted at the end.
    say
        Where lines for a person go.

    Raises
    ------
    TrainingError
        When the loss is not a number.
    """
    optimiser = torch.optim.AdamW(_groups(network, settings, slow or {}))
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(settings.averaging), use_buffers=True)
    first, losses, checks = 0, [], []
    if checkpoint is not None and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        first, losses = int(state["step"]), [tuple(pair) for pair in state["losses"]]
        say(f"going on from step {first} of {settings.steps} ({checkpoint})")
    begun, recent = time.monotonic(), []
    network.train()
    end = min(settings.steps, settings.stop_after or settings.steps)
    for step in range(first, end):
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * (1.0 if group["fixed"] else schedule(step, settings))
        loss = loss_of(network, batch_of(step))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        optimiser.step()
        average.update_parameters(network)
        recent.append(float(loss.detach()))
        if not np.isfinite(recent[-1]):
            raise TrainingError(
                f"loss at step {step} is {recent[-1]}: lower the learning rate ({settings.learning_rate:g})"
            )
        last = step + 1 == end
        if last or (step + 1) % settings.report_every == 0:
            losses.append((step + 1, float(np.mean(recent))))
            say(f"step {step + 1}/{settings.steps}  loss {losses[-1][1]:.5f}  {time.monotonic() - begun:.0f} s")
            recent = []
        if last or (step + 1) % settings.save_every == 0:
            if check is not None:
                checks.append((step + 1, check(_final(network, average, settings))))
                say("  " + "  ".join(f"{name} {value:.4f}" for name, value in checks[-1][1].items()))
                network.train()
            if checkpoint is not None and not last:
                _save(checkpoint, network, average, optimiser, step + 1, losses)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    history = History(tuple(losses), time.monotonic() - begun, tuple(checks))
    return _final(network, average, settings), history


def _final(network: nn.Module, average: AveragedModel, settings: LoopSettings) -> nn.Module:
    chosen: nn.Module = average.module if settings.averaging > 0 else network
    return chosen.eval()


def _groups(network: nn.Module, settings: LoopSettings, slow: dict[str, float]) -> list[dict[str, Any]]:
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    groups: list[dict[str, Any]] = []
    for name, parameter in network.named_parameters():
        if name in slow:
            groups.append({"params": [parameter], "peak": slow[name], "fixed": True, "weight_decay": 0.0})
        else:
            (decayed if parameter.ndim > 1 else plain).append(parameter)
    rate = settings.learning_rate
    groups.append({"params": decayed, "peak": rate, "fixed": False, "weight_decay": settings.weight_decay})
    groups.append({"params": plain, "peak": rate, "fixed": False, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


def _save(
    path: Path,
    network: nn.Module,
    average: AveragedModel,
    optimiser: torch.optim.Optimizer,
    step: int,
    losses: list[tuple[int, float]],
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(path.suffix + ".part")
    state = {
        "network": network.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": step,
        "losses": [list(pair) for pair in losses],
    }
    torch.save(state, fresh)
    fresh.replace(path)
