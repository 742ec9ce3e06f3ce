"""Where CLIPSeg weights come from, and what to do when they are absent.

Tried in this order: a folder given as such; ``checkpoints/<name>`` below the working directory
and below the project; the Hugging Face cache; the hub, unless ``HF_HUB_OFFLINE`` says otherwise.
Only safetensors are read: the hub's ``pytorch_model.bin`` is a pickle.
"""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hiersplat.semantics.config import FeaturesConfig

WEIGHTS_FILE = "model.safetensors"
NEEDED_FILES = (
    ("config.json",),
    (WEIGHTS_FILE,),
    ("preprocessor_config.json", "processor_config.json"),
    ("tokenizer.json", "vocab.json"),
)
"""Files of a CLIPSeg folder; of each group one will do (old and new forms)."""
_FETCHED_FILES = ["*.json", "*.txt", "*.safetensors"]

_SAFETENSORS_REVISIONS = {"CIDAS/clipseg-rd64-refined": "refs/pr/6"}
"""Where a repository keeps its safetensors when its main branch holds a pickle only."""


def checkpoint_folders(name: str) -> list[Path]:
    """Folders in which the weights called ``name`` may lie, in the order they are tried."""
    last = name.rstrip("/").rsplit("/", 1)[-1]
    project = Path(__file__).resolve().parent.parent.parent / "checkpoints"
    return [Path(name).expanduser(), Path("checkpoints") / last, project / last]


def find_weights(checkpoint: str) -> Path:
    """Return the folder that holds a CLIPSeg model with its tokenizer and image settings.

    Fetches it from the Hugging Face hub when it is nowhere on this machine.

    Raises:
        FileNotFoundError: If it cannot be had; the message says what to fetch and where to.
        ValueError: If the folder is there but incomplete, or the name is empty.
    """
    if not checkpoint.strip():
        raise ValueError("the CLIPSeg checkpoint has no name; give a folder or a hub repository")
    for folder in checkpoint_folders(checkpoint):
        if folder.is_dir():
            _check_complete(folder, checkpoint)
            return folder
    if checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") != 1:
        # It can only be a folder: the hub's names are owner/name.
        raise FileNotFoundError(_advice(checkpoint))
    folder = _from_hub(checkpoint)
    if folder is None:
        raise FileNotFoundError(_advice(checkpoint))
    return folder


def features_cache_settings(config: FeaturesConfig) -> dict[str, Any]:
    """Return what features depend on, as settings for a cache key.

    The batch size changes nothing and is left out; the content of the weights counts, not
    only their name.

    Raises:
        FileNotFoundError: If the weights cannot be had.
        ValueError: If their folder is incomplete.
    """
    settings = asdict(config)
    del settings["batch_size"]
    if config.features == "clipseg":
        digest = hashlib.blake2b(digest_size=8)
        folder = find_weights(config.checkpoint)
        files = [folder / name for group in NEEDED_FILES for name in group]
        for path in filter(Path.is_file, files):
            with path.open("rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
        settings["weights"] = digest.hexdigest()
    return settings


def read_card(folder: Path) -> dict[str, Any]:
    """Return what a model trained by this project says about itself; empty for other models.

    Raises:
        ValueError: If ``hiersplat.json`` is spoiled.
    """
    path = folder / "hiersplat.json"
    if not path.is_file():
        return {}
    try:
        card = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: spoiled ({error}); restore the file") from error
    if not isinstance(card, dict):
        raise ValueError(f"{path}: expected a JSON object; restore the file")
    return card


def load_clipseg(folder: Path) -> tuple[Any, Any]:
    """Load a model and its processor from a folder, without asking the network for anything.

    Their types are ``CLIPSegForImageSegmentation`` and ``CLIPSegProcessor``; transformers'
    annotations are unions too wide to say so.

    Raises:
        ValueError: If a file is spoiled or the weights do not fit the configuration.
    """
    from transformers import CLIPSegForImageSegmentation, CLIPSegProcessor
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    # Its report of missing weights is a table in the log; ours is the error below.
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        loaded: Any = CLIPSegForImageSegmentation.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        processor = CLIPSegProcessor.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # Its errors have no common class, and all mean a bad folder.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"{folder}: cannot be loaded as CLIPSeg ({reason}); fetch it again"
        ) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    model, report = loaded
    missing = sorted(report["missing_keys"]) + sorted(str(k) for k in report["mismatched_keys"])
    if missing:
        raise ValueError(
            f"{folder / WEIGHTS_FILE}: {len(missing)} weights are missing or of another size "
            f" (first: {missing[0]}); fetch it again"
        )
    return model, processor


def _check_complete(folder: Path, checkpoint: str) -> None:
    missing = [group[0] for group in NEEDED_FILES if not any((folder / n).is_file() for n in group)]
    if missing and (folder / "train.py").is_file():
        raise ValueError(
            f"{folder}: holds the recipe of this model but not its weights; restore them from the "
            f"project's repository, or train them: python {folder / 'train.py'} --out {folder}"
        )
    if missing:
        pickled = (
            " (pytorch_model.bin is a pickle and is never read)"
            if (WEIGHTS_FILE in missing and (folder / "pytorch_model.bin").is_file())
            else ""
        )
        raise ValueError(
            f"{folder}: not a whole CLIPSeg folder, {', '.join(missing)} missing{pickled}; "
            f"fetch it with: {_command(checkpoint, folder)}"
        )


def _from_hub(repository: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    revisions = [None, _SAFETENSORS_REVISIONS.get(repository)]
    is_offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    for local_only in (True,) if is_offline else (True, False):
        for revision in dict.fromkeys(revisions):
            try:
                folder = Path(
                    snapshot_download(
                        repository,
                        revision=revision,
                        allow_patterns=_FETCHED_FILES,
                        local_files_only=local_only,
                    )
                )
                _check_complete(folder, repository)
            except HFValidationError as error:
                raise ValueError(f"{repository!r} is no repository of the hub: {error}") from error
            except (OSError, ValueError):
                # Not in the cache, no network, or a revision that holds a pickle only.
                continue
            return folder
    return None


def _command(checkpoint: str, folder: Path) -> str:
    revision = _SAFETENSORS_REVISIONS.get(checkpoint)
    chosen = f" --revision {revision}" if revision else ""
    return f"hf download {checkpoint}{chosen} --local-dir {folder}"


def _advice(checkpoint: str) -> str:
    last = checkpoint.rstrip("/").rsplit("/", 1)[-1]
    if checkpoint.count("/") == 1 and not checkpoint.startswith((".", "/", "~")):
        return (
            f"CLIPSeg weights {checkpoint} ({WEIGHTS_FILE}) are neither in checkpoints/{last} nor "
            "in the Hugging Face cache, and the hub cannot be reached; on a machine with internet "
            f"run: {_command(checkpoint, Path('checkpoints') / last)} "
            f"(https://huggingface.co/{checkpoint}), then copy checkpoints/{last} here; "
            "or train without semantics (features: none)"
        )
    return (
        f"{checkpoint}: no such folder, nor checkpoints/{last}; expected a CLIPSeg folder with "
        "config, weights and tokenizer, as made by: hf download "
        f"CIDAS/clipseg-rd64-refined --revision refs/pr/6 --local-dir {checkpoint} "
        "(https://huggingface.co/CIDAS/clipseg-rd64-refined)"
    )
