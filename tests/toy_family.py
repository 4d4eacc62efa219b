"""A second family of teachers: pixels, class labels and float times, in as few lines as the seam allows."""

import dataclasses
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from processes import RectifiedFlow

import sid_jax.config
from sid_jax.families.open import FAMILIES, Family
from sid_jax.formats.marker import MARKER
from sid_jax.formats.safetensors_files import write_weights
from sid_jax.models.json_config import JsonConfig
from sid_jax.models.layers.constant import known_constant
from sid_jax.models.registry import NETWORK_TYPES, NetworkType
from sid_jax.runtime.cli.settings import Chapter, Setting
from sid_jax.runtime.storage.folders import appearing
from sid_jax.sid import guided
from sid_jax.teachers import build, component_of
from sid_jax.teachers.conditions import LabelConditions
from sid_jax.teachers.space import PixelSpace
from sid_jax.teachers.teacher import Teacher


@dataclasses.dataclass(frozen=True)
class ToyConfig(JsonConfig):
    """Side of the images, and how many classes there are."""

    side: int = 8
    classes: int = 3
    num_layers = 2


class Toy(nnx.Module):
    """Two convolutions with a time, told in thousandths, and a class between them."""

    def __init__(self, config, *, dtype=None, param_dtype=jnp.float32, execution=None, rngs):
        layer = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.frequencies = known_constant(np.array([0.001, 0.002]))
        self.time = nnx.Linear(2, 8, **layer)
        self.label = nnx.Embed(config.classes + 1, 8, **layer)
        self.first = nnx.Conv(3, 8, (3, 3), **layer)
        self.last = nnx.Conv(8, 3, (3, 3), **layer)

    def __call__(self, x, t, *, dropout_key=None, class_labels):
        return self.with_features(x, t, dropout_key=dropout_key, class_labels=class_labels)[0]

    def features(self, x, t, *, dropout_key=None, class_labels):
        return self.with_features(x, t, dropout_key=dropout_key, class_labels=class_labels)[1]

    def with_features(self, x, t, *, dropout_key=None, class_labels):
        told = self.time(jnp.sin(t[:, None] * self.frequencies[...])) + self.label(class_labels + 1)
        features = nnx.silu(self.first(x) + told[:, None, None])
        return self.last(features), features

    def logits(self, features):
        return features.astype(jnp.float32).mean(-1)


@dataclasses.dataclass(frozen=True)
class Euler:
    """The teacher's sampler."""

    process: RectifiedFlow
    num_steps: int
    guidance_scale: float

    def generate(self, denoiser, noise, condition):
        x = noise(0)
        for t in self.process.step_times(1.0, self.num_steps):
            (output,) = guided(denoiser, x, jnp.full(len(x), t), condition, (self.guidance_scale,))
            x = x - output / self.num_steps
        return x


def open_toy(bundle):
    """The family: six parts."""
    denoiser = component_of(bundle, "denoiser", "Toy")
    return Teacher(
        denoiser=denoiser,
        process=RectifiedFlow(),
        conditions=LabelConditions(denoiser.config.classes),
        space=PixelSpace(denoiser.config.side),
        sampler=lambda steps=None, guidance=None: Euler(
            RectifiedFlow(), steps or 4, 1.0 if guidance is None else guidance
        ),
        write=functools.partial(write, denoiser),
    )


def write(denoiser, folder, student, *, overwrite=False):
    """A student in the form of the source."""
    made = denoiser.load_constants().made_of(student.params)
    write_folder(folder, made, {"config": dict(student.settings), "step": student.step, "written_by": "sid_jax"})


def write_folder(folder, denoiser, about):
    """A folder with the one network."""
    with appearing(Path(folder)) as new:
        (new / "denoiser").mkdir()
        (new / "denoiser/config.json").write_text(json.dumps(denoiser.config_json))
        write_weights(new / "denoiser", "diffusion_pytorch_model", *denoiser.state_dict())
        (new / "model_index.json").write_text(json.dumps({"_class_name": "ToyPipeline", "denoiser": ["toy", "Toy"]}))
        (new / MARKER).write_text(json.dumps(about))


SECTION = Chapter(
    "Teachers of the toy",
    {
        "sid.t_init": Setting(1.0, "time of the first step", "(0, 1]"),
        "sid.t_min": Setting(0.02, "times of both losses are uniform in [t_min, t_max)", "(0, 1]"),
        "sid.t_max": Setting(0.98, "times of both losses: the upper bound, see sid.t_min", "(0, 1]"),
    },
    {"resolution": 8},
)
"""Its section of the schema."""


def register(monkeypatch):
    """Makes the family known: a line for each table."""
    monkeypatch.setitem(NETWORK_TYPES, "Toy", NetworkType(Toy, ToyConfig, "diffusion_pytorch_model"))
    monkeypatch.setitem(FAMILIES, "ToyPipeline", Family(open_toy, "toy"))
    monkeypatch.setitem(sid_jax.config.SECTIONS, "toy", SECTION)


def write_teacher(folder, classes=3):
    """A teacher with random parameters."""
    component = build("Toy", {"side": 8, "classes": classes})
    _, params, constants = nnx.split(Toy(component.config, rngs=nnx.Rngs(0)), nnx.Param, ...)
    write_folder(folder, dataclasses.replace(component, params=params, constants=constants), {})
    assert jax.tree.leaves(constants)
