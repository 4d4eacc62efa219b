"""Prompts to what the UNet is conditioned on: by the text encoders in every update, or once, into a cache."""

import dataclasses
import functools
import hashlib
import json
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from sid_jax.data.embeddings import Embeddings, open_embeddings, write_embeddings
from sid_jax.errors import UserError
from sid_jax.families.prompts import encode, fingerprint, tokenise
from sid_jax.families.stable_diffusion import Teacher
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.runtime.devices import processes
from sid_jax.runtime.devices.precision import parse_dtype
from sid_jax.runtime.run.progress import Progress
from sid_jax.runtime.storage.files import absolute, is_remote

_PROMPTS_A_DEVICE = 64  # at a time, while a cache is made


@dataclasses.dataclass(frozen=True)
class Text:
    """How prompts become conditions.

    read: prompts to a tree of numpy arrays `[B, ...]`: tokens, or embeddings from a cache.
    encode: (params, such a tree) -> the UNet's condition; pure, a part of compiled programs.
    params: what `encode` computes with, on the devices.
    """

    read: Callable[[Sequence[str]], Any]
    encode: Callable[[Any, Any], Any]
    params: Any


def text_of(teacher: Teacher, resolution: int) -> Text:
    """Text encoders that are at work in every update; `teacher` has their parameters.

    Args:
      teacher: its tokenizers and text encoders.
      resolution: of the images, in pixels, which SDXL is conditioned on too.
    """
    return Text(
        functools.partial(tokenise, teacher),
        lambda params, ids: encode(teacher, params, ids, resolution=resolution),
        tuple(component.params for component in teacher.text_encoders),
    )


def cached_text(read: Callable[[Sequence[str]], Any]) -> Text:
    """Text that was encoded before: what `read` gives is the condition, and there are no text encoders."""
    return Text(read, lambda params, condition: condition, ())


def open_text(
    config: ConfigDict, teacher: Teacher, prompts: Sequence[str], mesh: jax.sharding.Mesh, workdir: str
) -> Text:
    """The text of a run, as `config.text` says. Every process calls it.

    Args:
      config: the run's.
      teacher: its text encoders are loaded here, where they are needed, into shards.
      prompts: all that will be read.
      mesh: of the run.
      workdir: of the run; where the cache is, unless the config says another folder.

    Raises:
      UserError: the text encoders can't be read, or the cache not be written.
    """
    if not config.text.precompute:
        return text_of(_loaded(config, teacher, mesh), config.resolution)
    prompts = list(dict.fromkeys(["", *prompts]))
    folder = _folder(config, workdir) / _key(config, teacher, prompts)[:16]
    cache = open_embeddings(folder, prompts)
    if not processes.gather(cache is not None).all():
        cache = _make_cache(folder, text_of(_loaded(config, teacher, mesh), config.resolution), prompts, mesh, cache)
    return cached_text(cache)


def _loaded(config: ConfigDict, teacher: Teacher, mesh: jax.sharding.Mesh) -> Teacher:
    place = meshes.into_shards(mesh, parse_dtype("precision.teacher", config.precision.teacher))
    encoders = tuple(component.load(dtype=None, place=place) for component in teacher.text_encoders)
    return dataclasses.replace(teacher, text_encoders=encoders)


def _folder(config: ConfigDict, workdir: str) -> Path:
    folder = config.text.cache or f"{workdir}/text"
    if is_remote(folder):
        raise UserError(f"{folder} is in a bucket, and embeddings must be on a disk: set config key text.cache")
    return Path(absolute(folder))


def _key(config: ConfigDict, teacher: Teacher, prompts: Sequence[str]) -> str:
    """Hexadecimal SHA-256 of all that the embeddings depend on."""
    texts = hashlib.sha256("\n".join(prompts).encode()).hexdigest()
    facts = [fingerprint(teacher), texts, config.resolution, config.precision.compute, config.precision.teacher]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _make_cache(
    folder: Path, text: Text, prompts: Sequence[str], mesh: jax.sharding.Mesh, cache: Embeddings | None
) -> Embeddings:
    """All processes encode together; one on each disk that has no cache writes."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{folder.parent} can't be made ({reason}): set config key text.cache") from error
    sees_the_first = processes.see_the_first(folder.parent)[jax.process_index()]
    batches = _encoded(text, prompts, mesh)
    if cache is None and (processes.is_first() or not sees_the_first):
        row = jax.eval_shape(text.encode, text.params, text.read([""]))
        write_embeddings(folder, batches, sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(row)), len(prompts))
    else:
        for _ in batches:
            pass
    processes.wait_for_all("embeddings are written")
    return cache or Embeddings(folder, prompts)


def _encoded(text: Text, prompts: Sequence[str], mesh: jax.sharding.Mesh) -> Iterator[Any]:
    """Conditions of the prompts, in batches that are whole on every host."""
    batch = mesh.size * min(_PROMPTS_A_DEVICE, math.ceil(len(prompts) / mesh.size))
    encode_batch = jax.jit(text.encode, out_shardings=meshes.replicated(mesh))
    progress = Progress(len(prompts), unit="prompts encoded")
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        # The last batch is filled up, so that there is one shape to compile for.
        tokens = meshes.place(text.read([*part, *[""] * (batch - len(part))]), meshes.batch_sharding(mesh))
        conditions = jax.device_get(encode_batch(text.params, tokens))
        yield jax.tree.map(operator.itemgetter(slice(len(part))), conditions)
        progress.update(start + len(part))
    progress.close()
