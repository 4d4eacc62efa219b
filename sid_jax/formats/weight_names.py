"""Which of the files in a network's folder has its weights, as diffusers and transformers choose it.

diffusers takes an index of shards before a single file, transformers the single file before the index; so a folder that
was saved into twice is read as the stock library reads it. A variant such as "fp16" is chosen for each network: where a
network has no files of it, those without a variant are taken, and the other way round.
"""

import re
from collections.abc import Collection

from sid_jax.errors import UserError

STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
"""How each library calls a network's file of weights."""

PICKLES = (".bin", ".ckpt", ".pt", ".pth")
_VARIANT = r"(?P<variant>[\w-]+)"
_SHARD_NUMBER = re.compile(r"-\d{5}-of-\d{5}")


def weight_names(stem: str, variant: str = "") -> tuple[str, ...]:
    """File names that weights may have, the preferred one first: alone, or as an index of shards.

    Of an index with a variant there are three spellings; the first one is how it is written now.
    """
    single = f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors"
    spellings = ["index.{}", "{}.index"] if variant else ["index"]
    indices = [f"{stem}.safetensors.{each.format(variant)}.json" for each in spellings]
    if variant:
        indices.append(f"{single}.index.json")
    return (*indices, single) if stem == STEMS["diffusers"] else (single, *indices)


def choose(names: Collection[str], stem: str, variant: str, where: str) -> tuple[str, str]:
    """The file of weights, or the index of its shards, among the names of a folder's files; and its variant.

    Args:
      names: of the files.
      stem: how the network's library calls them.
      variant: that is asked for, "" for none.
      where: the folder, for error messages.

    Raises:
      UserError: there is none, or there are several variants and none is asked for; it says what is there instead.
    """
    others = variants(names, stem)
    wanted = [variant, ""] if variant else ["", *(others if len(others) == 1 else ())]
    for each in wanted:
        for name in weight_names(stem, each):
            if name in names:
                return name, each
    weights = sorted(name for name in names if name.endswith(".safetensors"))
    pickles = sorted(name for name in names if name.endswith(PICKLES))
    if others:
        found = f"it has the variants {', '.join(others[:4])}: a config's key variant says which, or keep one of them"
    elif weights:
        found = f"it has {', '.join(weights[:4])}, which is no name of this network's weights"
    elif pickles:
        found = f"it has {pickles[0]}, a pickle, which is never read; convert it to safetensors"
    else:
        found = "it has no weights"
    raise UserError(f"{where}/{stem}{'.' * bool(variant)}{variant}.safetensors: no such file ({found})")


def variants(names: Collection[str], stem: str) -> list[str]:
    """The variants that a folder has weights of, sorted."""
    spellings = [re.escape(name).replace("VARIANT", _VARIANT) for name in weight_names(stem, "VARIANT")]
    found = {match["variant"] for name in names for each in spellings if (match := re.fullmatch(each, name))}
    return sorted(name for name in found if not _SHARD_NUMBER.search(name))  # model.fp16-00001-of-00002.safetensors


def has_variant(names: Collection[str], variant: str) -> bool:
    """Whether files of a variant are among the names, whatever network they are of."""
    return any(variant in variants(names, stem) for stem in STEMS.values())
