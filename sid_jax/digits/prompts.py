"""MNIST as text-image pairs: 32x32 RGB pictures of digits, and prompts in several wordings."""

import re
import zipfile
from pathlib import Path

import numpy as np

from sid_jax.errors import UserError
from sid_jax.runtime.storage.small_files import open_regular

_MOST_BYTES = 2**30  # MNIST has 55 MB

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

TEMPLATES = (
    "a handwritten {word}",
    "a handwritten {numeral}",
    "the digit {word}",
    "the digit {numeral}",
    "the number {word}",
    "the number {numeral} written by hand",
    "a photo of the numeral {word}",
    "a drawing of the digit {numeral}",
    "{word}",
    "{numeral}",
)


def prompts_of(digit: int) -> list[str]:
    """Every wording that asks for `digit`, 0 to 9."""
    return [template.format(word=WORDS[digit], numeral=digit) for template in TEMPLATES]


def all_prompts() -> list[str]:
    """Every wording for every digit, digit by digit."""
    return [prompt for digit in range(10) for prompt in prompts_of(digit)]


def digit_of(prompt: str) -> int | None:
    """The digit that a prompt asks for, by its numeral or word; None if it names none, or more than one."""
    found = {int(n) for n in re.findall(r"\b\d\b", prompt)}
    found |= {WORDS.index(word) for word in re.findall(r"[a-z]+", prompt.lower()) if word in WORDS}
    return found.pop() if len(found) == 1 else None


def load_mnist(source: str) -> tuple[np.ndarray, np.ndarray]:
    """Digits and their labels.

    Args:
      source: an `.npz` file with arrays `images` `[N, 28, 28]` uint8 and `labels` `[N]`, or a `tensorflow_datasets`
        name such as "mnist", which is downloaded once.

    Returns:
      images `[N, 32, 32, 3]` uint8, padded with the background, and labels `[N]` int32.

    Raises:
      UserError: no such file, other arrays in it, or tensorflow_datasets is not installed.
    """
    if source.endswith(".npz"):
        images, labels = _read_npz(Path(source))
    else:
        images, labels = _read_tfds(source)
    images = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    return np.repeat(images[..., None], 3, axis=-1), labels.astype(np.int32)


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as entries:
            if sum(entry.file_size for entry in entries.infolist()) > _MOST_BYTES:
                raise UserError(f"{path}: its arrays take more than {_MOST_BYTES} bytes")
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                images, labels = arrays["images"], arrays["labels"]
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; give an .npz with MNIST's images and labels, or the name 'mnist'"
        ) from None
    except Exception as error:  # zipfile and numpy raise nearly anything for damaged files
        raise UserError(f"{path}: needs the arrays 'images' and 'labels' ({error})") from None
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
        raise UserError(f"{path}: needs images [N, 28, 28] uint8 and labels [N], found {images.shape}, {labels.shape}")
    return images, labels


def _read_tfds(name: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise UserError(f"{name}: to download it, pip install tensorflow-datasets==4.9.10") from None
    source = tfds.data_source(name, split="train")
    examples = [source[i] for i in range(len(source))]
    return np.stack([e["image"][..., 0] for e in examples]), np.array([e["label"] for e in examples])
