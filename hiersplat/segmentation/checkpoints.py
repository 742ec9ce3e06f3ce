"""Names, sizes and places of SAM 2's weights, and what is wrong with a file that is none.

Weights are looked for in ``checkpoints/`` (of the working directory, then of the
repository; ``$HIERSPLAT_CHECKPOINTS`` replaces both), then in the Hugging Face cache, and
are then fetched by ``huggingface_hub``, which shows progress, resumes and checks them.
"""

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

ModelSize = Literal["tiny", "small", "base_plus", "large"]
ModelVersion = Literal["2.1", "2"]
FOLDER_VARIABLE = "HIERSPLAT_CHECKPOINTS"
"""Environment variable that names the only folder to look in."""

_CONFIG_LETTER = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}
_NUM_BYTES = {
    ("2.1", "tiny"): 156008466,
    ("2.1", "small"): 184416285,
    ("2.1", "base_plus"): 323606802,
    ("2.1", "large"): 898083611,
    ("2", "tiny"): 155906050,
    ("2", "small"): 184309650,
    ("2", "base_plus"): 323493298,
    ("2", "large"): 897952466,
}
# Channels after the first convolution and number of blocks tell the sizes apart.
_TRUNK_SHAPE = {"tiny": (96, 12), "small": (96, 16), "base_plus": (112, 24), "large": (144, 48)}


@dataclass(frozen=True)
class CheckpointInfo:
    """One of the published SAM 2 checkpoints."""

    size: str
    version: str

    @property
    def title(self) -> str:
        """Name for people, as in ``SAM 2.1 large``."""
        return f"SAM {self.version} {self.size}"

    @property
    def file_name(self) -> str:
        """File name of the official release."""
        return f"sam{self.version}_hiera_{self.size}.pt"

    @property
    def repository(self) -> str:
        """Hugging Face repository that publishes the file."""
        return f"facebook/sam{self.version}-hiera-{self.size.replace('_', '-')}"

    @property
    def address(self) -> str:
        """Address to fetch the file from by hand."""
        return f"https://huggingface.co/{self.repository}/resolve/main/{self.file_name}"

    @property
    def config_name(self) -> str:
        """Model configuration inside the sam2 package."""
        letter = _CONFIG_LETTER[self.size]
        return f"configs/sam{self.version}/sam{self.version}_hiera_{letter}.yaml"

    @property
    def num_bytes(self) -> int:
        """Size of the official file."""
        return _NUM_BYTES[self.version, self.size]

    @property
    def fetch_command(self) -> str:
        """Command that fetches the file."""
        release = "" if self.version == "2.1" else f" --version {self.version}"
        return f"hiersplat-checkpoints fetch {self.size}{release}"


def checkpoint_info(size: str, version: str = "2.1") -> CheckpointInfo:
    """Return the checkpoint of one size and release.

    Raises:
        ValueError: If there is no such size or release.
    """
    if size not in get_args(ModelSize):
        known = ", ".join(get_args(ModelSize))
        raise ValueError(f"model_size {size!r} is not one of {known}")
    if version not in get_args(ModelVersion):
        raise ValueError(f"version {version!r} is not one of {', '.join(get_args(ModelVersion))}")
    return CheckpointInfo(size, version)


def all_checkpoints() -> list[CheckpointInfo]:
    """Return every published checkpoint, the newer release first, small to large."""
    return [
        CheckpointInfo(size, version)
        for version in get_args(ModelVersion)
        for size in get_args(ModelSize)
    ]


def checkpoint_folders() -> list[Path]:
    """Return the folders in which weights are looked for, in order."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return [Path(chosen).expanduser()]
    working, repository = Path.cwd() / "checkpoints", Path(__file__).parents[2] / "checkpoints"
    # An installed package has no repository around it, and so no second folder.
    return [working] if working == repository or not repository.is_dir() else [working, repository]


def find_checkpoint(info: CheckpointInfo) -> Path | None:
    """Return where the weights lie on this machine, or ``None``; nothing is fetched."""
    from huggingface_hub import try_to_load_from_cache

    for folder in checkpoint_folders():
        if (folder / info.file_name).is_file():
            return folder / info.file_name
    cached = try_to_load_from_cache(info.repository, info.file_name)
    return Path(cached) if isinstance(cached, str) else None


def fetch_checkpoint(info: CheckpointInfo) -> Path:
    """Fetch the weights into the Hugging Face cache and return their path.

    Raises:
        FileNotFoundError: If this machine is offline or the file cannot be had; the message
            names the file, the folder to put it in, the command and the address.
    """
    from huggingface_hub import constants, hf_hub_download

    if constants.HF_HUB_OFFLINE:
        raise FileNotFoundError(missing_message(info, "this machine is set to offline"))
    try:
        return Path(hf_hub_download(info.repository, info.file_name))
    except Exception as error:  # The hub raises its own, requests' and httpx's errors.
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise FileNotFoundError(missing_message(info, f"it cannot be fetched: {reason}")) from error


def missing_message(info: CheckpointInfo, reason: str) -> str:
    """Say in one line which file is missing, why, and the two ways to get it."""
    return (
        f"{info.title} needs {info.file_name}, which is not here ({reason}); "
        f"fetch it where there is a network with `{info.fetch_command}`, "
        f"or put it into {checkpoint_folders()[0]} from {info.address}"
    )


def resolve_checkpoint(info: CheckpointInfo, path: Path | None = None) -> Path:
    """Return the file with the weights, fetching it if it is nowhere on this machine.

    Args:
        info: Which weights.
        path: A file chosen by hand; nothing else is looked for then.

    Raises:
        FileNotFoundError: If the file cannot be found or fetched.
    """
    if path is not None:
        if not path.is_file():
            raise FileNotFoundError(missing_message(info, f"there is no file {path}"))
        return path
    return find_checkpoint(info) or fetch_checkpoint(info)


def read_checkpoint(path: Path, info: CheckpointInfo) -> "Mapping[str, Tensor]":
    """Read the weights of ``info`` from an official checkpoint, never unpickling objects.

    Raises:
        ValueError: If the file is truncated, is no checkpoint, or holds another model; the
            message says which.
    """
    import torch
    from torch import Tensor

    _check_container(path, info)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # Unpickling fails in many ways; each means the same here.
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ValueError(f"{path}: not a SAM 2 checkpoint ({reason})") from error
    weights = content.get("model") if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise ValueError(f"{path}: not a SAM 2 checkpoint (no weights under 'model')")
    held = recognise(weights)
    if held is None:
        raise ValueError(f"{path}: not a SAM 2 checkpoint (its weights belong to another model)")
    if held != info:
        raise ValueError(
            f"{path}: holds {held.title}, but {info.title} was asked for; "
            f"choose that size and version, or the file {info.file_name}"
        )
    return weights


def _check_container(path: Path, info: CheckpointInfo) -> None:
    """Refuse a file that is empty, cut short, or no archive at all."""
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(64)
    if not num_bytes:
        raise ValueError(f"{path}: truncated (0 bytes); fetch it again: `{info.fetch_command}`")
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path}: a Git LFS pointer, not the weights; run `git lfs pull`")
    if not start.startswith(b"PK"):
        raise ValueError(f"{path}: not a checkpoint (it begins with {start[:12]!r})")
    # The directory of a zip archive stands at its end, so a file cut short has none.
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path}: truncated ({num_bytes:,} bytes; the official file has "
            f"{info.num_bytes:,}); fetch it again: `{info.fetch_command}`"
        )


def recognise(weights: "Mapping[str, Tensor]") -> CheckpointInfo | None:
    """Tell size and release from the names and shapes of the weights."""
    trunk = "image_encoder.trunk."
    first = weights.get(f"{trunk}patch_embed.proj.weight")
    if first is None:
        return None
    blocks = {name.split(".")[3] for name in weights if name.startswith(f"{trunk}blocks.")}
    version = "2.1" if "no_obj_embed_spatial" in weights else "2"
    for size, shape in _TRUNK_SHAPE.items():
        if shape == (first.shape[0], len(blocks)):
            return CheckpointInfo(size, version)
    return None
