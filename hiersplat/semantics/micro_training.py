"""Training of the micro CLIPSeg: crops against texts, and texts against pixels.

Two losses, both on what is later used. Crops: the relevancy of :mod:`hiersplat.semantics.query`
itself, against the same negatives and at the same temperature, so that its threshold of one half
means something; and a contrast over the batch, which sharpens the order. Pixels: CLIPSeg's own
binary cross-entropy, with a Dice term because small things fill few pixels.
"""

import copy
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hiersplat.semantics.captions import GENERIC_WORDS, phrases_of
from hiersplat.semantics.decoding import decode, reduced_activations
from hiersplat.semantics.micro_data import CropPool, ViewPool, choose, say, varied
from hiersplat.semantics.query import QueryConfig

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

_MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
_STD = np.array([0.229, 0.224, 0.225], np.float32) * 255


@dataclass(frozen=True)
class MicroTrainingConfig:
    """How the micro model is trained."""

    seed: int = 0
    """Seed of weights, batches and variations."""
    steps: int = 14_000
    """Steps after which training ends."""
    wall_seconds: float = 10_800
    """Time by the clock after which training ends all the same."""
    crops: int = 48
    """Crops a step."""
    scenes: int = 4
    """Scenes the crops of a step come from."""
    views: int = 5
    """Views a step."""
    texts_per_view: int = 4
    """Texts decoded against each view; a quarter of them is true of nothing in it."""
    learning_rate: float = 1e-3
    """Rate of AdamW; rises over the first 60 steps and stays."""
    averaging: float = 0.995
    """Decay of the running mean of the weights, which is what is kept: it stands in for a falling
    rate, so that training can be stopped at any time."""
    weight_decay: float = 0.05
    """Decay of weight matrices."""


class MicroTrainer:
    """Trains a CLIPSeg model on pools of crops and views."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        crops: CropPool,
        views: ViewPool,
        config: MicroTrainingConfig,
    ) -> None:
        import torch

        self.model, self.tokenizer, self.config = model, tokenizer, config
        self.mean = copy.deepcopy(model).eval()
        """The running mean of the weights: what training is for."""
        self.crops, self.views = crops, views
        self.rng = np.random.default_rng(config.seed)
        self.phrases = [phrases_of(segment) for segment in crops.segments]
        self.all_phrases = sorted({phrase for each in self.phrases for phrase in each})
        # Rare things are seen as often as common ones, or the ground is half of all crops.
        names = [segment.name for segment in crops.segments]
        _, inverse, counts = np.unique(names, return_inverse=True, return_counts=True)
        self._weights = (counts**-0.5)[inverse]
        matrices = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            betas=(0.9, 0.98),
        )

    def run(
        self, log_every: int = 50, on_log: Callable[[int], None] = lambda step: None
    ) -> list[dict[str, float]]:
        """Train to the last step, or until the time is spent; return means of the losses.

        Args:
            log_every: Steps a mean runs over.
            on_log: Called with the number of steps done after each of these.
        """
        import torch

        self.model.train()
        history: list[dict[str, float]] = []
        start, sums = time.monotonic(), {}
        for step in range(self.config.steps):
            if time.monotonic() - start >= self.config.wall_seconds:
                break
            self._set_rate(step)
            losses = self.step()
            loss = sum(losses.values())
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # pyright: ignore[reportAttributeAccessIssue]
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self._average(step)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
            done = step + 1
            if done % log_every == 0:
                means = {name: value / log_every for name, value in sums.items()}
                history.append({"step": done, "seconds": time.monotonic() - start, **means})
                logger.info("%s", {k: round(v, 4) for k, v in history[-1].items()})
                sums = {}
                on_log(done)
        return history

    def _set_rate(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * min((step + 1) / 60, 1.0)

    def _average(self, step: int) -> None:
        import torch

        decay = min(self.config.averaging, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, weight in zip(self.mean.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(weight, 1 - decay)

    def step(self) -> dict[str, "Tensor"]:
        """Return the losses of one batch."""
        return {**self._crop_losses(), **self._pixel_losses()}

    def _crop_losses(self) -> dict[str, "Tensor"]:
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits, normalize

        rng = self.rng
        # Few scenes a batch: what a query must tell apart stands in one scene.
        scenes = rng.choice(self.crops.scenes, self.config.scenes)
        weights = np.where(np.isin(self.crops.scenes, scenes), self._weights, 0)
        rows = rng.choice(len(weights), self.config.crops, p=weights / weights.sum())
        phrases = [choose(self.phrases[row], rng) for row in rows]
        phrases += [choose(self.all_phrases, rng) for _ in range(self.config.crops // 3)]
        phrases = list(dict.fromkeys(phrases))
        said = [say(phrase, rng) for phrase in phrases] + list(GENERIC_WORDS)
        segments = [self.crops.segments[row] for row in rows]
        truth = torch.tensor([[p.means(s) for p in phrases] for s in segments])
        pixels = as_pixels(varied(self.crops.pixels[rows], rng))
        images = normalize(self.model.clip.get_image_features(pixels).pooler_output, dim=-1)
        texts = normalize(self.embed(said), dim=-1)
        cosine = images @ texts.T
        own, generic = cosine[:, : len(phrases)], cosine[:, len(phrases) :]
        margin = QueryConfig().temperature * (own - generic.amax(dim=1, keepdim=True))
        each = binary_cross_entropy_with_logits(margin, truth.float(), reduction="none")
        relevancy = (each[truth].mean() + each[~truth].mean()) / 2
        logits = own * self.model.clip.logit_scale.exp().clamp(max=50)
        contrast = (_contrast(logits, truth) + _contrast(logits.T, truth.T)) / 2
        return {"relevancy": relevancy, "contrast": 0.5 * contrast}

    def _pixel_losses(self) -> dict[str, "Tensor"]:
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits

        rng, count = self.rng, self.config.texts_per_view
        rows = rng.choice(len(self.views.images), self.config.views, replace=False)
        pairs = [p for row in rows for p in self.views.targets(row, count, self.all_phrases, rng)]
        target = torch.from_numpy(np.stack([mask for _, mask in pairs])).float()
        usable = torch.from_numpy(self.views.usable[rows]).float().repeat_interleave(count, dim=0)
        images = varied(self.views.images[rows], rng, flip=False)
        if rng.random() < 0.5:
            images, target, usable = images[:, :, ::-1], target.flip(2), usable.flip(2)
        reduced = reduced_activations(self.model, as_pixels(images))
        reduced = reduced.repeat_interleave(count, dim=0)
        logits = decode(self.model, reduced, self.embed([text for text, _ in pairs]))
        # What a text means fills few pixels; weighted up, but not to parity.
        weight = usable * (1 + 3 * target)
        each = binary_cross_entropy_with_logits(logits, target, reduction="none")
        pixels = (each * weight).sum() / weight.sum()
        share = logits.sigmoid() * usable
        wanted = target * usable
        overlap = (share * wanted).sum((1, 2))
        dice = 1 - (2 * overlap + 1) / (share.sum((1, 2)) + wanted.sum((1, 2)) + 1)
        is_present = wanted.sum((1, 2)) > 0
        return {"pixels": pixels, "dice": 0.3 * dice[is_present].mean()}

    def embed(self, texts: Sequence[str]) -> "Tensor":
        """Embed texts with gradients, not normalised."""
        tokens = self.tokenizer(list(texts), padding=True, return_tensors="pt")
        return self.model.clip.get_text_features(
            tokens["input_ids"], tokens["attention_mask"]
        ).pooler_output


def _contrast(logits: "Tensor", truth: "Tensor") -> "Tensor":
    """Cross-entropy of each row's true entries, all of which count as one answer."""
    shares = logits.log_softmax(dim=1)
    right = shares.masked_fill(~truth, float("-inf")).logsumexp(dim=1)
    return -right[truth.any(dim=1)].mean()


def as_pixels(images: np.ndarray) -> "Tensor":
    """Normalise images in [0, 255] as the processor does, to (num, 3, side, side)."""
    import torch

    normal = (images.astype(np.float32) - _MEAN) / _STD
    return torch.from_numpy(np.ascontiguousarray(normal.transpose(0, 3, 1, 2)))
