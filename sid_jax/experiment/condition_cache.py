"""The conditions of a run: encoded in every update; or once, into a cache on a disk."""

import functools
import hashlib
import json
import math
import operator
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from sid_jax.data.embeddings import Embeddings, open_embeddings, write_embeddings
from sid_jax.errors import UserError
from sid_jax.experiment.networks import params_of
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.runtime.devices import processes
from sid_jax.runtime.devices.precision import parse_dtype
from sid_jax.runtime.run.progress import following
from sid_jax.runtime.storage.files import absolute, is_remote
from sid_jax.size import Resolution
from sid_jax.teachers.conditions import Asked, CachedConditions, Conditions
from sid_jax.teachers.teacher import Teacher

_PROMPTS_A_DEVICE = 64  # at a time, while a cache is made


def precomputes(config: ConfigDict) -> bool:
    """Whether conditions are encoded once."""
    return "text" in config and config.text.precompute


def open_conditions(
    config: ConfigDict,
    teacher: Teacher,
    asked: Asked,
    mesh: jax.sharding.Mesh,
    workdir: str,
    shown: Asked = (),
) -> Conditions:
    """The teacher's conditions as `config.text` says. Every process calls it.

    Args:
      config: the run's.
      teacher: the parameters of its conditions are loaded here, where they are needed, into shards.
      asked: all that will be read in training.
      mesh: of the run.
      workdir: of the run; where the cache is, unless the config says another folder.
      shown: what will be read besides. Where some of it is not among the others, it has a cache of its own, so that the
        large one stays as it is.

    Raises:
      UserError: the networks can't be read, or the cache not be written.
    """
    place = meshes.into_shards(mesh, parse_dtype("precision.teacher", config.precision.teacher))

    def loaded() -> Conditions:
        return teacher.load("conditions", dtype=None, place=place).conditions

    if not precomputes(config):
        return loaded()

    def cache_of(asked: Asked) -> Embeddings:
        asked = list(dict.fromkeys(["", *asked]))
        folder = _folder(config, workdir) / _key(config, teacher.conditions, asked)[:16]
        cache = open_embeddings(folder, asked)
        everywhere = processes.gather(cache is not None).all()
        if cache is None or not everywhere:
            cache = _make_cache(folder, loaded(), config.resolution, asked, mesh, cache)
        return cache

    trained = cache_of(asked)
    if trained.has(shown):
        return CachedConditions(teacher.conditions, trained)
    besides = cache_of(shown)
    return CachedConditions(teacher.conditions, lambda read: (trained if trained.has(read) else besides)(read))


def _folder(config: ConfigDict, workdir: str) -> Path:
    folder = config.text.cache or f"{workdir}/text"
    if is_remote(folder):
        raise UserError(f"{folder} is in a bucket, and embeddings must be on a disk: set config key text.cache")
    return Path(absolute(folder))


def _key(config: ConfigDict, conditions: Conditions, asked: Asked) -> str:
    """Hexadecimal SHA-256 of all that the embeddings depend on."""
    texts = hashlib.sha256("\n".join(asked).encode()).hexdigest()
    facts = [conditions.digest(), texts, config.resolution, config.precision.compute, config.precision.teacher]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _make_cache(
    folder: Path,
    conditions: Conditions,
    resolution: Resolution,
    asked: Asked,
    mesh: jax.sharding.Mesh,
    cache: Embeddings | None,
) -> Embeddings:
    """All processes encode together; one on each disk that has no cache writes."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{folder.parent} can't be made ({reason}): set config key text.cache") from error
    shares_a_disk = processes.share_a_disk(folder.parent)[jax.process_index()]
    encode = functools.partial(conditions.encode_condition, resolution=resolution)
    params = params_of(conditions.parts)
    batches = _encoded(conditions, encode, params, asked, mesh)
    if cache is None and (processes.is_first() or not shares_a_disk):
        row = jax.eval_shape(encode, params, conditions.empty())
        write_embeddings(folder, batches, sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(row)), len(asked))
    else:
        for _ in batches:
            pass
    processes.wait_for_all("embeddings are written")
    return cache or Embeddings(folder, asked)


def _encoded(
    conditions: Conditions, encode: Callable[[Any, Any], Any], params: Any, asked: Asked, mesh: jax.sharding.Mesh
) -> Iterator[Any]:
    """Conditions of what is asked for, in batches that are whole on every host."""
    batch = mesh.size * min(_PROMPTS_A_DEVICE, math.ceil(len(asked) / mesh.size))
    encode_batch = jax.jit(encode, out_shardings=meshes.replicated(mesh))
    groups = (list(asked[start : start + batch]) for start in range(0, len(asked), batch))
    for some in following(groups, len(asked), "encoding", unit="prompts", size=len):
        # The last batch is filled up, so that there is one shape to compile for.
        read = meshes.place(conditions.read(some + some[-1:] * (batch - len(some))), meshes.batch_sharding(mesh))
        encoded = jax.device_get(encode_batch(params, read))
        yield jax.tree.map(operator.itemgetter(slice(len(some))), encoded)
