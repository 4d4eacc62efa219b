"""A CLIP tokenizer whose merges make one token of each word of a small vocabulary."""

import json
from collections.abc import Iterable
from pathlib import Path

from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"


def write_tokenizer(folder: Path, texts: Iterable[str], max_length: int) -> CLIPTokenizer:
    """Writes the files of a byte-pair tokenizer in CLIP's format, and opens it.

    Any other text is still tokenized, letter by letter.

    Args:
      folder: made if it is not there.
      texts: their words become tokens.
      max_length: tokens of a prompt, start and end included.
    """
    letters = _byte_letters()
    vocabulary = letters + [letter + "</w>" for letter in letters]
    merges = []
    # Longest first: a merge that a short word needs must not cut a long one in pieces.
    words = {word for text in texts for word in text.split() if len(word) > 1}
    for word in sorted(words, key=lambda word: (-len(word), word)):
        left = word[0]
        for i, letter in enumerate(word[1:], start=1):
            right = letter + "</w>" if i == len(word) - 1 else letter
            if (left, right) not in merges:
                merges.append((left, right))
                vocabulary.append(left + right)
            left += right
    vocabulary = [*dict.fromkeys(vocabulary), START, END]

    folder.mkdir(parents=True, exist_ok=True)
    ids = {token: i for i, token in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2))
    config = {
        **special,
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": max_length,
        "tokenizer_class": "CLIPTokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    return CLIPTokenizer.from_pretrained(str(folder))


def _byte_letters() -> list[str]:
    """The printable stand-ins of the 256 bytes, as GPT-2's and CLIP's byte-level vocabularies order them."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    return [chr(code) for code in printable] + [chr(256 + i) for i in range(others)]
