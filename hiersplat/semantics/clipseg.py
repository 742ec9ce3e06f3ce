"""CLIPSeg by ``transformers``: images, masks and texts in one space.

Dense features are text-independent: they are the inputs of CLIPSeg's decoder, that is the
activations of three layers of its image encoder (``extract_layers``), each reduced by the
decoder's own linear map (3 x 64 values a patch in the published model). Together with the same
reduction of the class token, the ``summary``, they hold everything the decoder ever learns of
an image, so a text can be decoded later without the image encoder: ``decode_relevancy``.

Embeddings of masks and texts are unit vectors in CLIP's joint space (512 values).
Images are uint8 RGB, arrays at this boundary are numpy, results are float32.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from hiersplat.semantics.config import FeaturesConfig
from hiersplat.semantics.crops import mask_crops
from hiersplat.semantics.decoding import decode, reduced_activations
from hiersplat.semantics.texts import check_texts
from hiersplat.semantics.weights import find_weights, load_clipseg, read_card

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


class ClipSegEncoder:
    """A CLIPSeg model that turns images, masks and texts into features."""

    def __init__(self, config: FeaturesConfig, device: "str | torch.device" = "cpu") -> None:
        """Find and load the weights.

        Raises:
            FileNotFoundError: If the weights are not on this machine and cannot be fetched.
            ValueError: If they are spoiled or do not fit the model.
        """
        import torch

        self.config = config
        self.device = torch.device(device)
        folder = find_weights(config.checkpoint)
        self.model, self.processor = load_clipseg(folder)
        self.model.to(device=self.device, dtype=getattr(torch, config.dtype)).eval()
        card = read_card(folder)
        self.note: str = card.get("note", "")
        """What every output made with this model must say; empty for published weights."""
        self.words: frozenset[str] | None = frozenset(card["words"]) if "words" in card else None
        """The words the model was trained with, where it knows only those."""

    @property
    def dense_dim(self) -> int:
        """Values a patch of the dense features."""
        settings = self.model.config
        return len(settings.extract_layers) * settings.reduce_dim

    @property
    def embedding_dim(self) -> int:
        """Values of a mask's or a text's embedding."""
        return int(self.model.config.projection_dim or 0)

    def dense_features(
        self, image: UInt8[np.ndarray, "height width 3"]
    ) -> Float[np.ndarray, "rows columns dense_dim"]:
        """Return the decoder's inputs for every patch, independent of any text.

        The patches cover the whole image: CLIPSeg resizes it to a square first.
        """
        return self.encode_view(image)[0]

    def encode_view(
        self, image: UInt8[np.ndarray, "height width 3"]
    ) -> tuple[Float[np.ndarray, "rows columns dense_dim"], Float[np.ndarray, " dense_dim"]]:
        """Return the dense features and the summary (the class token's share) of a view."""
        import torch

        _check_image(image)
        with torch.inference_mode():
            reduced = reduced_activations(self.model, self._pixels([image]))[
                0
            ]  # (1 + patches, dense_dim)
        tokens = reduced.float().cpu().numpy()
        side = round((len(tokens) - 1) ** 0.5)
        return tokens[1:].reshape(side, side, -1), tokens[0]

    def mask_embeddings(
        self,
        image: UInt8[np.ndarray, "height width 3"],
        labels: Int[np.ndarray, "height width"],
        num_masks: int,
    ) -> Float[np.ndarray, "{num_masks} embedding_dim"]:
        """Embed every mask of one level from its masked crop, as unit vectors.

        Crops are resized to the size CLIP was trained at, which is smaller than the size
        CLIPSeg segments at. A mask without pixels gets a zero row.
        """
        _check_image(image)
        embeddings = np.zeros((num_masks, self.embedding_dim), np.float32)
        crops = mask_crops(image, labels, self.config.crop_context, self.config.crop_background)
        for batch in _batches(crops, self.config.batch_size):
            embeddings[[label for label, _ in batch]] = self.image_embeddings(
                [crop for _, crop in batch]
            )
        return embeddings

    def image_embeddings(
        self, images: Sequence[UInt8[np.ndarray, "height width 3"]]
    ) -> Float[np.ndarray, "num_images embedding_dim"]:
        """Embed whole images (crops, most often) as unit vectors."""
        import torch

        side = _side(self.model.config.vision_config.image_size)
        rows = [np.zeros((0, self.embedding_dim), np.float32)]
        for batch in _batches(images, self.config.batch_size):
            with torch.inference_mode():
                pixels = self._pixels(batch, size={"height": side, "width": side})
                output = self.model.clip.get_image_features(pixels).pooler_output
                rows.append(torch.nn.functional.normalize(output.float(), dim=-1).cpu().numpy())
        return np.concatenate(rows)

    def text_embeddings(self, texts: Sequence[str]) -> Float[np.ndarray, "num_texts embedding_dim"]:
        """Embed texts as unit vectors.

        Raises:
            ValueError: If a text is empty, too long, no string or in unknown words.
        """
        import torch

        rows = [np.zeros((0, self.embedding_dim), np.float32)]
        for batch in _batches(texts, self.config.batch_size):
            with torch.inference_mode():
                output = self._conditions(batch)
                rows.append(torch.nn.functional.normalize(output.float(), dim=-1).cpu().numpy())
        return np.concatenate(rows)

    def relevancy_maps(
        self, image: UInt8[np.ndarray, "height width 3"], texts: Sequence[str]
    ) -> Float[np.ndarray, "num_texts height width"]:
        """Return for every pixel how well it fits each text, in [0, 1], as CLIPSeg decodes it.

        Raises:
            ValueError: If a text is empty, too long, no string or in unknown words.
        """
        check_texts(texts, self.processor.tokenizer, self._max_tokens, self.words)
        dense, summary = self.encode_view(image)
        return self.decode_relevancy(dense, summary, texts, (image.shape[0], image.shape[1]))

    def decode_relevancy(
        self,
        dense: Float[np.ndarray, "rows columns dense_dim"],
        summary: Float[np.ndarray, " dense_dim"],
        texts: Sequence[str],
        size: tuple[int, int],
    ) -> Float[np.ndarray, "num_texts height width"]:
        """Decode texts against a view's features, without its image; see ``relevancy_maps``.

        Args:
            dense: The view's dense features.
            summary: The view's summary.
            texts: What to look for.
            size: Height and width of the maps, in pixels.
        """
        import torch
        from torch.nn.functional import interpolate

        tokens = np.concatenate([summary[None], dense.reshape(-1, dense.shape[-1])])
        reduced = torch.from_numpy(tokens.astype(np.float32))[None].to(
            self.device, self.model.dtype
        )
        maps = np.empty((len(texts), *size), np.float32)
        start = 0
        for batch in _batches(texts, self.config.batch_size):
            with torch.inference_mode():
                conditions = self._conditions(batch)
                logits = decode(self.model, reduced.expand(len(batch), -1, -1), conditions)
                logits = interpolate(logits[:, None].float(), size, mode="bilinear")[:, 0]
                maps[start : start + len(batch)] = logits.sigmoid().cpu().numpy()
            start += len(batch)
        return maps

    @property
    def _max_tokens(self) -> int:
        return self.model.config.text_config.max_position_embeddings

    def _pixels(self, images: Sequence[np.ndarray], **options: Any) -> "torch.Tensor":
        pixels = self.processor.image_processor(
            images=list(images), return_tensors="pt", input_data_format="channels_last", **options
        )["pixel_values"]
        return pixels.to(self.device, self.model.dtype)

    def _conditions(self, texts: Sequence[str]) -> "torch.Tensor":
        check_texts(texts, self.processor.tokenizer, self._max_tokens, self.words)
        tokens = self.processor.tokenizer(list(texts), padding=True, return_tensors="pt")
        return self.model.clip.get_text_features(
            tokens["input_ids"].to(self.device), tokens["attention_mask"].to(self.device)
        ).pooler_output


def _check_image(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(
            f"expected a uint8 RGB image (height, width, 3), got {image.dtype} {image.shape}"
        )


def _side(size: "int | list[int] | tuple[int, int] | None") -> int:
    return int(size[0] if isinstance(size, (list, tuple)) else size or 0)


def _batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
