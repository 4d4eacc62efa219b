"""Every setting of a run, with its default: the schema that the files in `configs/` fill in.

A config file is a Python file with `get_config()`, which starts from `default()` and changes what its run needs.
The types of the values below are the types that `--config.x=y` accepts, and `RANGES` says where numbers must be. A
common part is the same for all teachers. Each family of teachers has a section of its own, and a key that a family has
not does not exist there.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict, config_dict

from sid_jax.errors import UserError
from sid_jax.runtime.cli.config_file import SIZE, flatten
from sid_jax.runtime.run.retention import Keep
from sid_jax.size import size_of


def default(family: str = "stable_diffusion") -> ConfigDict:
    """Every setting for teachers of a family; its defaults are published settings (see the sections below).

    Raises:
      UserError: there is no such family.
    """
    if not isinstance(family, str) or family not in SECTIONS:
        raise UserError(f"config key family is {family!r}: use one of {', '.join(SECTIONS)}")
    c = _common()
    c.family = family
    SECTIONS[family](c)
    return c


def schema_of(config: Mapping[str, Any]) -> ConfigDict:
    """The schema of a config, by the family that it names; those from before there were several name none."""
    return default(config.get("family", "stable_diffusion"))


def changes(settings: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """The settings of a resolved config that are not the defaults of its family: key, value, default."""
    defaults = flatten(schema_of(settings))
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in flatten(settings).items()}
    return [(key, value, defaults.get(key)) for key, value in values.items() if value != defaults.get(key)]


def _stable_diffusion(c: ConfigDict) -> None:
    """Stable Diffusion 1.5 in one step (SiD-LSG, Zhou et al. 2025, arXiv 2406.01561)."""
    c.prompts = ""  # a text file, one prompt a line

    # Text is encoded in every update; or once, into a cache, and the text encoders leave the devices.
    c.text = ConfigDict()
    c.text.precompute = False
    c.text.cache = ""  # a folder on a disk; empty: in the workdir

    c.sid.t_init = config_dict.placeholder(int)  # None: 625 of 1000 times for one step, the last time for several
    c.sid.t_min = 20  # times of both losses are uniform in [t_min, t_max)
    c.sid.t_max = 980

    # Guidance (section 3): a named strategy, and each scale by itself where it is set.
    c.guidance = ConfigDict()
    c.guidance.strategy = "lsg"  # "none" | "lsg" | "zero_cfg" | "anti_cfg"
    c.guidance.scale = 1.5  # of "lsg"
    for name in ("kappa1", "kappa2", "kappa3", "kappa4"):
        c.guidance[name] = config_dict.placeholder(float)  # None: what the strategy says
    # Prompts of the fake update that are dropped. None: 0.1 where kappa1 or kappa2 is not 1, as published, else 0.
    c.guidance.prompt_dropout = config_dict.placeholder(float)
    c.guidance.drop_before_generator = (
        True  # as published; false: the generator still sees the prompt, the loss does not
    )


def _edm(c: ConfigDict) -> None:
    """EDM's teachers in pixels: CIFAR-10 without labels in one step (SiD, Zhou et al. 2024, arXiv 2404.04057)."""
    c.teacher = "edm-cifar10-32x32-uncond-vp.pkl"  # NVIDIA's file, a folder of sid_jax.convert, or a student
    # What the generator begins as (SiD2A): a run, what sid_jax.export wrote, or a file. Empty: the teacher, as it is.
    c.student = ""
    c.resolution = 32
    c.images = 500_000_000
    c.batch = 256

    c.labels = ConfigDict()
    c.labels.counts = ""  # a text file: how many images each class has, one a line; empty: all classes alike
    c.real.label = ""  # feature of tfds; empty: the only class there is

    c.sid.t_init = config_dict.placeholder(float)  # sigma_init, the noise that images are made of; None: 2.5
    c.sid.times = "lognormal_karras"
    c.sid.p_mean = -1.2  # of ln sigma in the fake network's loss
    c.sid.p_std = 1.2
    c.sid.u_max = 0.8  # the generator's sigma is Karras' at u in [0, u_max): the published tmax is 1000 times that
    c.sid.sigma_min = 0.002
    c.sid.sigma_max = 80.0
    c.sid.rho = 7.0
    c.sid.alpha = 1.2
    c.sid.loss_scale = 100.0

    c.augment = 0.12  # probability of each transform of what the fake network sees; 0: it sees the images as they are
    c.dropout = config_dict.placeholder(float)  # of fake network and generator as they learn; None: the teacher's rate

    c.gan.form = "sida"  # "sida" (SiDA) | "map" (Few-Step SiD): what is averaged, and how it is weighted
    c.gan.group = config_dict.placeholder(int)  # images that a cross entropy is averaged over; None: a micro-batch

    c.optimizer.fake_lr = 1e-5
    c.optimizer.generator_lr = 1e-5
    c.optimizer.eps = 1e-8  # 1e-6 with precision.compute bfloat16
    c.optimizer.clip_fake = config_dict.placeholder(float)  # largest entry of the fake network's gradient; 1 in SiDA
    c.ema.half_life = 500_000
    c.precision.compute = "float32"
    c.precision.teacher = "float32"
    c.precision.matmul = "highest"  # "default": what the device does fastest, with fewer bits; "highest": float32
    c.evaluate.teacher_steps = 18
    c.evaluate.teacher_guidance = 1.0  # there is none


SECTIONS: dict[str, Callable[[ConfigDict], None]] = {"stable_diffusion": _stable_diffusion, "edm": _edm}
"""What each family adds to the common part, and changes in it."""


def _common() -> ConfigDict:
    """What is the same for teachers of all families."""
    c = ConfigDict()
    c.seed = 0

    # What is distilled.
    c.family = ""  # of the teacher; it decides which other keys there are
    c.teacher = "stable-diffusion-v1-5/stable-diffusion-v1-5"  # a diffusers folder, or a hub id
    c.variant = ""  # "fp16" reads *.fp16.safetensors, of each network that has such files
    c.revision = "main"  # branch, tag or commit of a hub id
    # Pixels: the side of square images, or (height, width), on the command line HEIGHTxWIDTH.
    c.resolution = config_dict.FieldReference(512, field_type=SIZE)

    # How long, and how much at once.
    c.images = 10_000_000  # generated images that the generator is trained on
    c.batch = 512  # images an update, over all devices
    c.accumulation = 1  # micro-batches that a batch is processed in, one after the other

    # The generator (sections 2 and 4 of the method) and the loss (section 5).
    c.sid = ConfigDict()
    c.sid.num_steps = 1  # K, the steps that the student is sampled with
    c.sid.noise = "fresh"  # "fresh" | "fixed" | "ddim": the noise of the steps after the first
    c.sid.first = "scaled"  # what the first step is given: "scaled" noise, as published, or "unit", as for LCM
    c.sid.times = "uniform"  # the law of the times of both losses
    c.sid.alpha = 1.0
    c.sid.weighting = "sid"
    c.sid.loss_scale = 1.0  # factor of the generator's loss

    # The diffusion GAN (section 6), with real image-text pairs; without weights there is none. Counted in images.
    c.gan = ConfigDict()
    c.gan.lambda_d = 0.0  # weight of the discriminator's loss
    c.gan.lambda_g = 0.0  # weight of the adversarial loss of the generator; sid.loss_scale is that of its other loss
    c.gan.start = 0  # images before lambda_g counts
    c.gan.freeze = 0  # images before the generator is trained
    c.real = ConfigDict()
    c.real.source = ""  # "tfds:NAME", a folder of images, "shards/*.tar", or what sid_jax.encode wrote
    c.real.split = "train"  # of tfds
    c.real.data_dir = ""  # of tfds; empty: its default
    c.real.image = "image"  # feature of tfds
    c.real.caption = ""  # feature of tfds; empty: the only text there is
    c.real.max_pixels = 2**26  # larger images are not decoded, and count as corrupted

    # Adam, and the exponential moving average of the generator.
    c.optimizer = ConfigDict()
    c.optimizer.fake_lr = 1e-6  # learning rate of the fake network
    c.optimizer.generator_lr = 1e-6  # learning rate of the generator
    c.optimizer.fake_warmup = 0  # images over which fake_lr grows linearly to its value; 0: it is there from the start
    c.optimizer.generator_warmup = 0  # the same of generator_lr, from the generator's own first update
    c.optimizer.generator_beta1 = 0.0  # of the generator's first moment; 0: it has none, as the fake network has none
    c.optimizer.beta2 = 0.999
    c.optimizer.eps = 1e-6
    c.optimizer.clip_value = config_dict.placeholder(float)  # largest entry of a gradient; 1 in pure bf16
    c.optimizer.clip_norm = config_dict.placeholder(float)  # largest norm of a network's whole gradient; none published
    c.ema = ConfigDict()
    c.ema.half_life = 50_000  # images
    c.ema.ramp_up = 0.05  # the half-life is at most this share of the images seen

    # Numbers: parameters are stored in float32.
    c.precision = ConfigDict()
    c.precision.compute = "bfloat16"  # "float32" | "bfloat16": activations of the three networks
    c.precision.teacher = "bfloat16"  # storage of the frozen networks
    c.max_bad_steps = 20  # stop after this many steps in a row whose loss is not finite

    # How the UNet's attention is computed: a matter of speed and memory.
    c.attention = ConfigDict()
    c.attention.implementation = (
        "auto"  # by device | "xla": plain | "chunked" | "cudnn": GPU flash | "splash": TPU flash
    )
    c.attention.long = 1024  # positions; shorter sequences, and the text's 77 tokens, are always "xla"

    # Memory against time: the backward pass computes again what the forward pass did not keep.
    # "none" keeps all, "dots" the results of layers but not of norms and activations, "full" the inputs of blocks
    # and what attention kernels give.
    c.remat = "none"
    c.scan = True  # equal transformer blocks as a loop: much less to compile, for a copy of their weights

    # Devices: the batch is split over data x fsdp, parameters over fsdp. -1: all that is left.
    c.mesh = ConfigDict()
    c.mesh.data = -1
    c.mesh.fsdp = 1

    # What a run writes, counted in updates.
    c.log_every = 10
    c.sample_every = 500
    c.sample_images = 16  # in a sample grid
    # What the grids and the last picture show: a file of prompts, or a prompt; or classes such as 0-9. Empty: some of
    # all that the run asks for.
    c.sample_prompts = ""

    # Checkpoints.
    c.checkpoint_every = 500  # updates
    c.checkpoint_minutes = 0.0  # also when this long has passed since the last; 0: no matter
    c.keep_checkpoints = 2  # so many of the newest; one alone leaves nothing to fall back on if it is damaged
    c.keep_every = 0  # updates; those at multiples of it stay for good; 0: none
    c.keep_best = 0  # so many of the best by a logged value; 0: none
    c.keep_best_by = "frechet_distance"
    c.keep_best_mode = "min"  # "min" | "max"
    c.on_failed_save = "continue"  # "continue" | "stop": where one can't be written, as on a full disk

    # Weights & Biases, besides TensorBoard; empty: not used.
    c.wandb = ConfigDict()
    c.wandb.project = ""
    c.wandb.entity = ""
    c.wandb.name = ""  # empty: the name of the workdir

    # At the end: a picture of teacher beside student, and the table, with the student's part of it as it trains.
    c.evaluate = ConfigDict()
    c.evaluate.metric = ""  # a metric network, such as "bundled:digits_metric"; empty: no table
    c.evaluate.pictures = 16  # in the picture, of each; 0: none. With a metric it shows some of those that are measured
    c.evaluate.every = 0  # updates, a multiple of log_every: measures the student for metrics.jsonl; 0: not
    c.evaluate.samples = 2000
    c.evaluate.teacher_steps = 50  # steps of the teacher's sampler
    c.evaluate.teacher_guidance = 7.5  # of classifier-free guidance
    return c


RANGES = {
    "seed": "[0, 2^64)",
    "images": "[1, 2^53]",
    "batch": "[1, 2^20]",
    "accumulation": "[1, 2^20]",
    "sid.num_steps": "[1, 1000]",
    "sid.alpha": "[-100, 100]",
    "sid.loss_scale": "[0, 1e9]",
    "gan.lambda_d": "[0, 1e9]",
    "gan.lambda_g": "[0, 1e9]",
    "gan.start": "[0, 2^53]",
    "gan.freeze": "[0, 2^53]",
    "real.max_pixels": "[1, 2^32]",
    "optimizer.fake_lr": "[0, 1e30]",
    "optimizer.generator_lr": "[0, 1e30]",
    "optimizer.fake_warmup": "[0, 2^53]",
    "optimizer.generator_warmup": "[0, 2^53]",
    "optimizer.generator_beta1": "[0, 1)",
    "optimizer.beta2": "[0, 1)",
    "optimizer.eps": "(0, 1e9]",
    "optimizer.clip_value": "(0, 1e30]",
    "optimizer.clip_norm": "(0, 1e30]",
    "ema.half_life": "[0, 2^53]",
    "ema.ramp_up": "[0, 1e9]",
    "max_bad_steps": "[1, 2^31)",
    "attention.long": "[1, 2^31)",
    "mesh.data": "[-1, 2^20]",
    "mesh.fsdp": "[-1, 2^20]",
    "log_every": "[1, 2^53]",
    "sample_every": "[1, 2^53]",
    "sample_images": "[1, 4096]",
    "checkpoint_every": "[1, 2^53]",
    "checkpoint_minutes": "[0, 1e9]",
    "keep_checkpoints": "[1, 2^31)",
    "keep_every": "[0, 2^53]",
    "keep_best": "[0, 2^31)",
    "evaluate.pictures": "[0, 4096]",
    "evaluate.every": "[0, 2^53]",
    "evaluate.samples": "[1, 10^6]",
    "evaluate.teacher_steps": "[1, 10^4]",
    "evaluate.teacher_guidance": "[-1e4, 1e4]",
}
"""Where the numbers of the common part must be, by key. Bounds that no published run is near keep out slips of the hand
that would take all memory, or all time, without a word."""

MEASURED = ("frechet_distance", "precision", "recall", "prompt_accuracy")
"""What `evaluate.every` measures; the other names of `metrics.jsonl` are logged in any case."""

SECTION_RANGES: dict[str, dict[str, str]] = {
    "stable_diffusion": {
        "sid.t_init": "[0, 10^5]",
        "sid.t_min": "[0, 10^5]",
        "sid.t_max": "[0, 10^5]",
        "guidance.scale": "[-1e4, 1e4]",
        "guidance.kappa1": "[-1e4, 1e4]",
        "guidance.kappa2": "[-1e4, 1e4]",
        "guidance.kappa3": "[-1e4, 1e4]",
        "guidance.kappa4": "[-1e4, 1e4]",
        "guidance.prompt_dropout": "[0, 1]",
    },
    "edm": {
        "sid.t_init": "(0, 1e6]",
        "sid.p_mean": "[-100, 100]",
        "sid.p_std": "[0, 100]",
        "sid.u_max": "(0, 1]",
        "sid.sigma_min": "(0, 1e6]",
        "sid.sigma_max": "(0, 1e6]",
        "sid.rho": "[1, 1000]",
        "augment": "[0, 1]",
        "dropout": "[0, 1)",
        "gan.group": "[1, 2^20]",
        "optimizer.clip_fake": "(0, 1e30]",
    },
}
"""The same of each family's section. A number without a range must be finite."""


def check_numbers(config: ConfigDict) -> None:
    """Checks that all numbers are finite and in their ranges, those in tuples too.

    Args:
      config: of a run; or of a command with a schema of its own, whose numbers must be finite.

    Raises:
      UserError: one is not; the line names it, and its range.
    """
    if "resolution" in config:
        try:
            size_of(config.resolution)
        except ValueError as error:
            raise UserError(f"config key resolution is {error}") from None
    ranges = RANGES | SECTION_RANGES.get(config.family, {}) if "family" in config else {}
    for key, whole in flatten(config).items():
        for value in whole if isinstance(whole, tuple | list) else (whole,):
            if not isinstance(value, int | float) or (isinstance(value, bool) and key not in ranges):
                continue
            interval = ranges.get(key, "(-inf, inf)")
            if isinstance(value, bool) or not _is_in(value, interval):
                wanted = f"{_noun(value)} in {interval}" if key in ranges else "a finite number"
                raise UserError(f"config key {key} is {str(value)[:60]}: use {wanted}")


def _noun(value: int | float) -> str:
    return "an int" if isinstance(value, int) else "a number"


def _is_in(value: int | float, interval: str) -> bool:
    """Whether a number is in an interval as `RANGES` has them. Floats are compared as float32, in which they are used:
    there 1e39 is infinite, and 0.99999999 is 1."""
    low, high = map(_bound, interval[1:-1].split(","))
    if isinstance(value, float):
        with np.errstate(over="ignore"):
            value, low, high = (float(np.float32(number)) for number in (value, low, high))
        if not math.isfinite(value):
            return False
    above = low < value or (interval[0] == "[" and low == value)
    return above and (value < high or (interval[-1] == "]" and value == high))


def _bound(text: str) -> int | float:
    base, power, exponent = text.strip().partition("^")
    return int(base) ** int(exponent) if power else float(base)


def check(config: ConfigDict) -> None:
    """Checks all numbers, and the settings of when a run writes what.

    Raises:
      UserError: one of them makes no sense.
    """
    check_numbers(config)
    if config.on_failed_save not in ("continue", "stop"):
        raise UserError(f"config key on_failed_save is {config.on_failed_save!r}: use continue or stop")
    every = config.evaluate.every
    if every % config.log_every:
        raise UserError(f"config key evaluate.every is {every}: use 0, or a multiple of log_every")
    if every and not config.evaluate.metric:
        raise UserError("config key evaluate.metric is empty, and evaluate.every needs one: name a metric network")
    keep = Keep.from_config(config.to_dict())
    if keep.best and keep.metric not in MEASURED and not keep.metric.endswith(("_loss", "_norm", "_logit", "_gap")):
        raise UserError(
            f"config key keep_best_by is {keep.metric!r}, which no line of metrics.jsonl has: use one of "
            f"{', '.join(MEASURED)}, or a loss such as generator_loss"
        )
    if keep.best and keep.metric in MEASURED and not every:
        raise UserError(
            f"config key keep_best is {keep.best}, and nothing measures {keep.metric}: set evaluate.every, or "
            "keep_best to 0"
        )
