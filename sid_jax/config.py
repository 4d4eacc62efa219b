"""Every setting of a run, its default, its meaning and its values: the schema that the files in `configs/` fill in.

A config file is a Python file with `get_config()`, which starts from `default()` and changes what its run needs.
The types of the defaults below are the types that `--config.x=y` accepts. A common part is the same for all teachers.
Each family of teachers has a section of its own, and a key that a family has not does not exist there.

Bounds of numbers that no published run is near keep out slips of the hand that would take all memory, or all time,
without a word.
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from sid_jax.errors import UserError
from sid_jax.models import ATTENTION, REMAT
from sid_jax.runtime.cli import command_line
from sid_jax.runtime.cli.config_file import SIZE, flatten
from sid_jax.runtime.cli.settings import Chapter, Setting, check_values, defaults_of, settings_in
from sid_jax.runtime.devices.precision import DTYPES, MATMUL
from sid_jax.runtime.run.retention import MODES, Keep
from sid_jax.runtime.run.saving import ON_FAILED_SAVE
from sid_jax.sid import FIRST_INPUTS, GAN_FORMS, LAWS, NOISE_TYPES, STRATEGIES, WEIGHTINGS
from sid_jax.size import LARGEST

SECTIONS: dict[str, Chapter] = {}
"""What each family adds to the common part, and changes in it, by the name of the family."""

COMMON = (
    Chapter(
        "What is distilled",
        {
            "family": Setting(
                "stable_diffusion", "family of the teacher; it decides which other settings there are", SECTIONS
            ),
            "teacher": Setting("stable-diffusion-v1-5/stable-diffusion-v1-5", "a diffusers folder, or a hub id"),
            "variant": Setting("", '"fp16" reads *.fp16.safetensors, of each network that has such files'),
            "revision": Setting("main", "branch, tag or commit of a hub id"),
            "resolution": Setting(
                512, f"pixels: the side of square images, or their height and width; at most {LARGEST} each", SIZE
            ),
        },
    ),
    Chapter(
        "How long, and how much at once",
        {
            "seed": Setting(0, "what all random draws derive from", "[0, 2^64)"),
            "images": Setting(10_000_000, "generated images that the generator is trained on", "[1, 2^53]"),
            "batch": Setting(512, "images an update, over all devices", "[1, 2^20]"),
            "accumulation": Setting(1, "micro-batches that a batch is processed in, one after the other", "[1, 2^20]"),
            "max_bad_steps": Setting(20, "stop after this many updates in a row whose loss is not finite", "[1, 2^31)"),
        },
    ),
    Chapter(
        "The generator, and the loss (docs/method.md, sections 2, 4 and 5)",
        {
            "sid.num_steps": Setting(1, "K, the steps that the student is sampled with", "[1, 1000]"),
            "sid.noise": Setting("fresh", "the noise of the steps after the first", NOISE_TYPES),
            "sid.first": Setting(
                "scaled",
                "what the first step is given: scaled noise, as published, or unit noise, as for LCM",
                FIRST_INPUTS,
            ),
            "sid.times": Setting("uniform", "the law of the times of both losses", LAWS),
            "sid.alpha": Setting(1.0, "alpha of the generator's loss", "[-100, 100]"),
            "sid.weighting": Setting(
                "sid", "weights of the generator's loss, by time; sid: by |x_g - y_real|", ("sid", *WEIGHTINGS)
            ),
            "sid.loss_scale": Setting(1.0, "factor of the generator's loss", "[0, 1e9]"),
        },
    ),
    Chapter(
        "The diffusion GAN, with real images (section 6); without weights there is none",
        {
            "gan.lambda_d": Setting(0.0, "weight of the discriminator's loss", "[0, 1e9]"),
            "gan.lambda_g": Setting(
                0.0, "weight of the generator's adversarial loss; sid.loss_scale is that of its other loss", "[0, 1e9]"
            ),
            "gan.start": Setting(0, "images before lambda_g counts", "[0, 2^53]"),
            "gan.freeze": Setting(0, "images before the generator is trained", "[0, 2^53]"),
            "real.source": Setting(
                "",
                "tfds:NAME, a folder of images, shards/*.tar, or what sid_jax.dataset or sid_jax.encode wrote",
            ),
            "real.split": Setting("train", "split of tfds"),
            "real.data_dir": Setting("", "folder of tfds; empty: its default"),
            "real.image": Setting("image", "feature of tfds: the image"),
            "real.caption": Setting("", "feature of tfds: the text; empty: the only text there is"),
            "real.max_pixels": Setting(2**26, "larger images are not decoded, and count as corrupted", "[1, 2^32]"),
        },
    ),
    Chapter(
        "Adam, and the exponential moving average of the generator",
        {
            "optimizer.fake_lr": Setting(1e-6, "learning rate of the fake network", "[0, 1e30]"),
            "optimizer.generator_lr": Setting(1e-6, "learning rate of the generator", "[0, 1e30]"),
            "optimizer.fake_warmup": Setting(
                0, "images over which fake_lr grows linearly to its value; 0: it is there from the start", "[0, 2^53]"
            ),
            "optimizer.generator_warmup": Setting(
                0, "the same of generator_lr, from the generator's own first update", "[0, 2^53]"
            ),
            "optimizer.generator_beta1": Setting(
                0.0, "decay of the generator's first moment; 0: it has none, as the fake network has none", "[0, 1)"
            ),
            "optimizer.beta2": Setting(0.999, "decay of the second moments", "[0, 1)"),
            "optimizer.eps": Setting(1e-6, "added to the roots of the second moments", "(0, 1e9]"),
            "optimizer.clip_value": Setting(
                float, "largest entry of a gradient, none: any; 1 in pure bfloat16", "(0, 1e30]"
            ),
            "optimizer.clip_norm": Setting(
                float, "largest norm of a network's whole gradient, none: any, as published", "(0, 1e30]"
            ),
            "ema.half_life": Setting(50_000, "half-life of the average, in images", "[0, 2^53]"),
            "ema.ramp_up": Setting(0.05, "the half-life is at most this share of the images seen", "[0, 1e9]"),
        },
    ),
    Chapter(
        "Numbers, speed and memory",
        {
            "precision.compute": Setting("bfloat16", "activations of the three networks", DTYPES),
            "precision.teacher": Setting(
                "bfloat16", "storage of the frozen networks; what is trained is stored in float32", DTYPES
            ),
            "attention.implementation": Setting(
                "auto",
                "auto: by device and shape; xla: plain; chunked: plain, a part at a time; blocked: parts that fit a "
                "CPU's cache; cudnn: GPU flash; splash: TPU flash",
                ATTENTION,
            ),
            "attention.long": Setting(
                1024,
                "fewer positions than these, such as the text's 77 tokens, are computed by xla; auto on a CPU goes by "
                "the number of logits instead",
                "[1, 2^31)",
            ),
            "remat": Setting(
                "none",
                "what the forward pass keeps, the rest being computed again in the backward pass. none: all is kept; "
                "dots: results of layers, not of norms and activations; full: inputs of blocks, results of attention "
                "kernels",
                REMAT,
            ),
            "scan": Setting(
                True, "equal transformer blocks as a loop: much less to compile, for a copy of their weights"
            ),
            "mesh.data": Setting(
                -1, "groups of devices; the batch is split over data x fsdp; -1: all that are left", "[-1, 2^20]"
            ),
            "mesh.fsdp": Setting(1, "devices in a group, over which parameters are split; -1: all", "[-1, 2^20]"),
        },
    ),
    Chapter(
        "What a run writes",
        {
            "log_every": Setting(10, "updates between two lines of metrics", "[1, 2^53]"),
            "sample_every": Setting(500, "updates between two sample grids", "[1, 2^53]"),
            "sample_images": Setting(16, "images in a sample grid", "[1, 4096]"),
            "sample_prompts": Setting(
                "",
                "what the grids and the last picture show: a file of prompts, or a prompt; or classes, such as 0-9; "
                "empty: some of all that the run asks for",
            ),
            "wandb.project": Setting("", "project of Weights & Biases, besides TensorBoard; empty: it is not used"),
            "wandb.entity": Setting("", "user or team there; empty: your default"),
            "wandb.name": Setting("", "name of the run there; empty: that of the workdir"),
        },
    ),
    Chapter(
        "Checkpoints",
        {
            "checkpoint_every": Setting(500, "updates between two checkpoints", "[1, 2^53]"),
            "checkpoint_minutes": Setting(
                0.0, "one also when so many minutes have passed since the last; 0: no matter", "[0, 1e9]"
            ),
            "keep_checkpoints": Setting(
                2, "so many of the newest stay; one alone leaves nothing to fall back on if it is damaged", "[1, 2^31)"
            ),
            "keep_every": Setting(0, "those at multiples of so many updates stay for good; 0: none", "[0, 2^53]"),
            "keep_best": Setting(0, "so many of the best by a logged value stay; 0: none", "[0, 2^31)"),
            "keep_best_by": Setting("frechet_distance", "the logged value: what evaluate.every measures, or a loss"),
            "keep_best_mode": Setting("min", "which of its values are best", MODES),
            "on_failed_save": Setting(
                "continue", "what the run does where a checkpoint can't be written, as on a full disk", ON_FAILED_SAVE
            ),
        },
    ),
    Chapter(
        "At the end: teacher beside student in a picture and in the table, with the student's part of it as it trains",
        {
            "evaluate.metric": Setting("", "a metric network, such as bundled:digits_metric; empty: no table"),
            "evaluate.pictures": Setting(
                16,
                "images of each in the picture; 0: none. With a metric it shows some of those that are measured",
                "[0, 4096]",
            ),
            "evaluate.every": Setting(
                0, "the student is measured every so many updates, a multiple of log_every; 0: not", "[0, 2^53]"
            ),
            "evaluate.samples": Setting(
                2000, "images that a measurement is of: of each, teacher and student, in the table", "[1, 10^6]"
            ),
            "evaluate.teacher_steps": Setting(50, "steps of the teacher's sampler", "[1, 10^4]"),
            "evaluate.teacher_guidance": Setting(7.5, "the teacher's scale of classifier-free guidance", "[-1e4, 1e4]"),
        },
    ),
    Chapter(
        "As it trains, by the protocol of a published table (docs/evaluate.md), every evaluate.every updates",
        {
            "evaluate.protocol": Setting("", "its name, such as coco30k or cifar10; empty: none"),
            "evaluate.reference": Setting(
                "", "statistics of real images; METRIC=FILE,METRIC=FILE where several metrics have one each"
            ),
            "evaluate.prompts": Setting("", "the protocol's prompts, a text file; empty: those that the run asks for"),
            "evaluate.inception": Setting("", "weights of Inception; empty: the released ones, which are fetched once"),
            "evaluate.clip": Setting(
                "", "folder or hub id of the protocol's CLIP model, of 5.5 GB; empty: no CLIP score is measured"
            ),
            "evaluate.dinov2": Setting(
                "", "folder or hub id of DINOv2 (facebook/dinov2-large, 1.2 GB); empty: fd_dinov2 is not measured"
            ),
            "evaluate.batch": Setting(
                0,
                "images that a device makes, and measures, at a time; 0: by their size, at most 64",
                "[0, 65536]",
            ),
        },
    ),
)
"""What is the same for teachers of all families."""

_KAPPA = "[-1e4, 1e4]"

SECTIONS["stable_diffusion"] = Chapter(
    "Teachers of Stable Diffusion; defaults: SD1.5 in one step (SiD-LSG, Zhou et al. 2025, arXiv 2406.01561)",
    {
        "prompts": Setting("", "a text file, one prompt a line"),
        "text.precompute": Setting(
            False, "encode prompts once, into a cache, and the text encoders leave the devices; else in every update"
        ),
        "text.cache": Setting("", "folder of the cache, on a disk; empty: in the workdir"),
        "sid.t_init": Setting(
            int, "time of the first step; none: 625 of 1000 for one step, the last time for several", "[0, 10^5]"
        ),
        "sid.t_min": Setting(20, "times of both losses are uniform in [t_min, t_max)", "[0, 10^5]"),
        "sid.t_max": Setting(980, "times of both losses: the upper bound, see sid.t_min", "[0, 10^5]"),
        "guidance.strategy": Setting("lsg", "a named choice of the four scales (section 3)", STRATEGIES),
        "guidance.scale": Setting(1.5, "scale of strategy lsg", _KAPPA),
        "guidance.kappa1": Setting(float, "scale of the fake network in its own loss; none: the strategy's", _KAPPA),
        "guidance.kappa2": Setting(
            float, "scale of the fake network in the generator's loss, beside the teacher; none: the strategy's", _KAPPA
        ),
        "guidance.kappa3": Setting(
            float, "scale of the fake network in the generator's loss, beside x_g; none: the strategy's", _KAPPA
        ),
        "guidance.kappa4": Setting(float, "scale of the teacher in the generator's loss; none: the strategy's", _KAPPA),
        "guidance.prompt_dropout": Setting(
            float,
            "share of the fake update's prompts that are dropped; none: as published, 0.1 where kappa1 or kappa2 is "
            "not 1, else 0",
            "[0, 1]",
        ),
        "guidance.drop_before_generator": Setting(
            True, "whether the generator too goes without the dropped prompts, as published; else the loss alone"
        ),
    },
)

SECTIONS["edm"] = Chapter(
    "Teachers of EDM; defaults: CIFAR-10 without labels in one step (SiD, Zhou et al. 2024, arXiv 2404.04057)",
    {
        "student": Setting(
            "",
            "what the generator begins as (SiD2A): a run, what sid_jax.export wrote, or a file; empty: the teacher",
        ),
        "labels.counts": Setting(
            "", "a text file: how many images each class has, one a line; empty: all classes alike"
        ),
        "real.label": Setting("", "feature of tfds: the class; empty: the only class there is"),
        "sid.t_init": Setting(float, "sigma_init, the noise that images are made of; none: 2.5", "(0, 1e6]"),
        "sid.p_mean": Setting(-1.2, "mean of ln sigma in the fake network's loss", "[-100, 100]"),
        "sid.p_std": Setting(1.2, "standard deviation of ln sigma in the fake network's loss", "[0, 100]"),
        "sid.u_max": Setting(
            0.8, "the generator's sigma is Karras' at u in [0, u_max): the published tmax is 1000 times that", "(0, 1]"
        ),
        "sid.sigma_min": Setting(0.002, "the least of Karras' sigmas", "(0, 1e6]"),
        "sid.sigma_max": Setting(80.0, "the largest of Karras' sigmas", "(0, 1e6]"),
        "sid.rho": Setting(7.0, "rho of Karras' sigmas", "[1, 1000]"),
        "augment": Setting(
            0.12, "probability of each transform of what the fake network sees; 0: the images as they are", "[0, 1]"
        ),
        "dropout": Setting(float, "dropout of fake network and generator in training; none: the teacher's", "[0, 1)"),
        "gan.form": Setting(
            "sida", "what is averaged, and how it is weighted: sida (SiDA) or map (Few-Step SiD)", GAN_FORMS
        ),
        "gan.group": Setting(int, "images that a cross entropy is averaged over; none: a micro-batch", "[1, 2^20]"),
        "optimizer.clip_fake": Setting(
            float, "largest entry of the fake network's gradient, none: any; 1 in SiDA", "(0, 1e30]"
        ),
        "precision.matmul": Setting(
            "highest",
            "products of matrices; default: what the device does fastest, with fewer bits; highest: float32",
            MATMUL,
        ),
    },
    {
        "teacher": "edm-cifar10-32x32-uncond-vp.pkl",  # NVIDIA's file, a folder of sid_jax.convert, or a student
        "resolution": 32,
        "images": 500_000_000,
        "batch": 256,
        "sid.times": "lognormal_karras",
        "sid.alpha": 1.2,
        "sid.loss_scale": 100.0,
        "optimizer.fake_lr": 1e-5,
        "optimizer.generator_lr": 1e-5,
        "optimizer.eps": 1e-8,  # 1e-6 with precision.compute bfloat16
        "ema.half_life": 500_000,
        "precision.compute": "float32",
        "precision.teacher": "float32",
        "evaluate.teacher_steps": 18,
        "evaluate.teacher_guidance": 1.0,  # there is none
    },
)

MEASURED = ("frechet_distance", "precision", "recall", "prompt_accuracy")
"""What `evaluate.every` measures by a metric network; the other names of `metrics.jsonl` are logged in any case."""

LOGGED = ("_loss", "_norm", "_logit", "_gap")
"""How the names end of what is logged in any case."""


def settings_of(family: str) -> dict[str, Setting]:
    """Every setting for teachers of a family, by its key.

    Raises:
      UserError: there is no such family.
    """
    if not isinstance(family, str) or family not in SECTIONS:
        raise UserError(f"config key family is {family!r}: use one of {', '.join(SECTIONS)}")
    found = settings_in((*COMMON, SECTIONS[family]))
    return found | {"family": dataclasses.replace(found["family"], default=family)}


def chapters() -> tuple[Chapter, ...]:
    """All settings of all families, as `--help` lists them."""
    return (*COMMON, *SECTIONS.values())


def default(family: str = "stable_diffusion") -> ConfigDict:
    """Every setting for teachers of a family; its defaults are published settings (see the sections above).

    Raises:
      UserError: there is no such family.
    """
    return defaults_of(settings_of(family))


def schema_of(config: Mapping[str, Any]) -> ConfigDict:
    """The schema of a config, by the family that it names; those from before there were several name none."""
    return default(config.get("family", "stable_diffusion"))


def parse(parser: command_line.Parser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, ConfigDict]:
    """Parses the flags of a command that takes the config of a run; see `command_line.parse_with_config`."""
    return command_line.parse_with_config(parser, argv, schema_of, chapters())


def changes(settings: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """The settings of a resolved config that are not the defaults of its family: key, value, default."""
    defaults = flatten(schema_of(settings))
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in flatten(settings).items()}
    return [(key, value, defaults.get(key)) for key, value in values.items() if value != defaults.get(key)]


def check_settings(config: ConfigDict) -> None:
    """Checks that each setting has a value that it takes: a number in its range, one of the names that are known.

    Raises:
      UserError: one has not; the line names it, and what it takes.
    """
    check_values(config, settings_of(config.family))


def check(config: ConfigDict) -> None:
    """Checks all values, and the settings of when a run writes what.

    Raises:
      UserError: one of them makes no sense.
    """
    check_settings(config)
    every = config.evaluate.every
    if every % config.log_every:
        raise UserError(f"config key evaluate.every is {every}: use 0, or a multiple of log_every")
    if every and not config.evaluate.metric and not config.evaluate.protocol:
        raise UserError(
            "config keys evaluate.metric and evaluate.protocol are empty, and evaluate.every needs one: name a metric "
            "network, or a protocol"
        )
    keep = Keep.from_config(config.to_dict())
    of_protocol = bool(config.evaluate.protocol)  # which names what it measures
    if keep.best and not of_protocol and keep.metric not in MEASURED and not keep.metric.endswith(LOGGED):
        raise UserError(
            f"config key keep_best_by is {keep.metric!r}, which no line of metrics.jsonl has: use one of "
            f"{', '.join(MEASURED)}, or a loss such as generator_loss"
        )
    if keep.best and not every and not keep.metric.endswith(LOGGED):
        raise UserError(
            f"config key keep_best is {keep.best}, and nothing measures {keep.metric}: set evaluate.every, or "
            "keep_best to 0"
        )
