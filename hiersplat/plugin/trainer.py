"""The trainer: nerfstudio's, with whole checkpoints and one line for what a user can mend.

nerfstudio prints a traceback and ends with status 0 where a run is interrupted, and a full disk
leaves half a checkpoint that the next run stumbles over.
"""

import pickle
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NoReturn

import torch
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.utils.decorators import check_main_thread

from hiersplat.plugin.errors import InputError, one_line_errors

INTERRUPTED = 130
"""Exit status of a program that Ctrl-C has ended."""


@dataclass
class HiersplatTrainerConfig(TrainerConfig):
    """nerfstudio's training, with whole checkpoints and clear errors."""

    _target: type = field(default_factory=lambda: HiersplatTrainer)

    def save_config(self) -> None:
        """Write ``config.yml``, the first file of a run."""
        try:
            super().save_config()
        except OSError as error:
            _stop_unwritten(self.get_base_dir(), error)


class HiersplatTrainer(Trainer):
    """Trains, and says in one line why it cannot go on."""

    config: HiersplatTrainerConfig

    def setup(self, test_mode: Literal["test", "val", "inference"] = "val") -> None:
        """Load the data, segment the views that are not cached yet, make the model."""
        with one_line_errors():
            self._find_checkpoint()
        try:
            super().setup(test_mode)
        except KeyboardInterrupt:
            _stop_interrupted(
                "interrupted while the views were prepared; those that are done are cached: "
                "run the same command to go on"
            )

    def train(self) -> None:
        """Train to the end and write the last checkpoint."""
        try:
            super().train()
        except KeyboardInterrupt:
            saved = self._saved()
            # With the viewer on, a finished run waits for Ctrl-C.
            if self.training_state == "completed" and saved[-1:] == [self._path(self.step)]:
                return
            _stop_interrupted(f"interrupted at step {self.step}; {self._how_to_go_on(saved)}")

    @check_main_thread
    def save_checkpoint(self, step: int) -> None:
        """Write a checkpoint whole or not at all; the one before it stays until then."""
        state = {
            "step": step,
            "pipeline": self.pipeline.state_dict(),
            "optimizers": {k: v.state_dict() for k, v in self.optimizers.optimizers.items()},
            "schedulers": {k: v.state_dict() for k, v in self.optimizers.schedulers.items()},
            "scalers": self.grad_scaler.state_dict(),
        }
        path = self._path(step)
        # Not beside the others: nerfstudio takes every name in their folder for a checkpoint.
        partial = self.base_dir / f".{path.name}.partial"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, partial)
            partial.replace(path)
        # A full disk is a RuntimeError of torch's writer.
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            _stop_unwritten(path, error)
        if self.config.save_only_latest_checkpoint:
            for other in self._saved():
                if other != path:
                    other.unlink()

    def _path(self, step: int) -> Path:
        return self.checkpoint_dir / f"step-{step:09d}.ckpt"

    def _saved(self) -> list[Path]:
        return sorted(self.checkpoint_dir.glob("step-*.ckpt"))

    def _how_to_go_on(self, saved: list[Path]) -> str:
        if not saved:
            return "there is no checkpoint yet, but all views are cached: run the same command"
        rest = self._start_step + self.config.max_num_iterations - 1 - _step_of(saved[-1])
        return (
            f"{saved[-1]} is kept: add --load-dir {self.checkpoint_dir} "
            f"--max-num-iterations {rest} to go on from it"
        )

    def _find_checkpoint(self) -> None:
        """Find what is to be loaded before views are prepared for it.

        Raises:
            ValueError: If it is not there.
        """
        folder, path = self.config.load_dir, self.config.load_checkpoint
        if folder is not None:
            if not folder.is_dir():
                raise ValueError(f"{folder}: no such folder; give a run's nerfstudio_models")
            steps = [_step_of(path) for path in folder.glob("step-*.ckpt")]
            if self.config.load_step is None and steps:
                self.config.load_step = max(steps)
            if self.config.load_step not in steps:
                named = "" if self.config.load_step is None else f" of step {self.config.load_step}"
                raise ValueError(
                    f"{folder}: no checkpoint{named} there; give a run's nerfstudio_models"
                )
        elif path is not None and not path.is_file():
            raise ValueError(f"{path}: no such checkpoint")

    def _load_checkpoint(self) -> None:
        try:
            super()._load_checkpoint()
        except (RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
            message = " ".join(str(error).split())[:200]
            raise InputError(
                f"error: {self.config.load_dir or self.config.load_checkpoint}: the checkpoint is "
                f"spoiled or another method's ({message}); take an older one or train again"
            ) from error


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def _stop_unwritten(path: Path, error: Exception) -> NoReturn:
    # torch's writer says of a full disk where in its archive it stopped, nothing more.
    reason = getattr(error, "strerror", None) or "writing failed, as on a full disk"
    raise InputError(
        f"error: {path}: cannot be written ({reason}); what was written before is kept: free some "
        "space, or choose another folder with --output-dir"
    ) from error


def _stop_interrupted(message: str) -> NoReturn:
    print(message, file=sys.stderr)  # noqa: T201  (the one line that a user is left with)
    raise SystemExit(INTERRUPTED)
