"""The paths of a run's config, kept from the root, so that they mean the same wherever the run goes on from."""

import glob
import os
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from sid_jax import assets
from sid_jax.data.prompts import names_file
from sid_jax.errors import UserError
from sid_jax.runtime.cli import config_file
from sid_jax.runtime.storage.files import absolute, is_remote
from sid_jax.runtime.storage.json_files import read_json

KEYS = (
    "teacher", "student", "prompts", "labels.counts", "real.source", "real.data_dir", "text.cache", "sample_prompts",
    "evaluate.metric", "evaluate.prompts", "evaluate.inception", "evaluate.clip", "evaluate.dinov2",
)  # fmt: skip
"""Settings that are paths; or names that are none, which stay: hub ids, `bundled:NAME`, `tfds:NAME`."""

_ON_THE_HUB = ("teacher", "student", "evaluate.clip", "evaluate.dinov2")


def with_absolute_paths(config: ConfigDict, workdir: str) -> ConfigDict:
    """The config with its paths from the root of their disk or bucket.

    What a run of before had as a relative path for `real.source` stays as it is where it is the same place: the
    position in its images is kept by that name.

    Args:
      config: resolved and locked.
      workdir: of the run, which may have been started before.

    Raises:
      UserError: a path is in a bucket that can't be opened here.
    """
    given = config_file.flatten(config)
    changed = {key: _from_the_root(key, given[key]) for key in KEYS if given.get(key)}
    if changed.get("real.source", "") != given.get("real.source", ""):
        saved = _saved(workdir).get("real.source")
        if isinstance(saved, str) and saved and _from_the_root("real.source", saved) == changed["real.source"]:
            changed["real.source"] = saved
    references = given.get("evaluate.reference", "")
    changed |= (
        {"evaluate.reference": ",".join(map(_reference_from_the_root, references.split(",")))} if references else {}
    )
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(changed)
    return config.lock()


def _from_the_root(key: str, name: str) -> str:
    if name.startswith((assets.PREFIX, "tfds:")):
        return name
    if key == "sample_prompts" and not names_file(name):
        return name  # a prompt, or classes
    if key in _ON_THE_HUB and (is_remote(name) or not os.path.exists(absolute(name))):
        return name  # a hub id, or nothing that can be opened
    if key == "real.source" and not is_remote(name):
        path = os.path.expanduser(name)
        # It may be a pattern. Where the current folder has characters of patterns in its name, they are none.
        if not os.path.isabs(path) and not os.path.exists(path) and glob.has_magic(path):
            return os.path.join(glob.escape(os.getcwd()), path)
    return os.fspath(absolute(name))


def _reference_from_the_root(text: str) -> str:
    """Of a file, or of METRIC=FILE."""
    name, equals, file = text.rpartition("=")
    return f"{name}{equals}{_from_the_root('evaluate.reference', file)}" if file else text


def _saved(workdir: str) -> Mapping[str, Any]:
    """The settings that the run in a folder had when it was started last; none where they can't be read."""
    try:
        return config_file.flatten(read_json(absolute(workdir) / "config.json"))
    except UserError:
        return {}
