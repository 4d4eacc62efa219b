"""Every setting of a run, with its default: the schema that the files in `configs/` fill in.

A config file is a Python file with `get_config()`, which starts from `default()` and changes what its run needs.
The types of the values below are the types that `--config.x=y` accepts. A common part is the same for all teachers.
Each family of teachers has a section of its own, and a key that a family has not does not exist there.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from sid_jax.errors import UserError
from sid_jax.runtime.run.retention import Keep


def default(family: str = "stable_diffusion") -> ConfigDict:
    """Every setting for teachers of a family; its defaults are published settings (see the sections below).

    Raises:
      UserError: there is no such family.
    """
    if family not in SECTIONS:
        raise UserError(f"config key family is {family!r}: use one of {', '.join(SECTIONS)}")
    c = _common()
    c.family = family
    SECTIONS[family](c)
    return c


def schema_of(config: Mapping[str, Any]) -> ConfigDict:
    """The schema of a config, by the family that it names; those from before there were several name none."""
    return default(config.get("family", "stable_diffusion"))


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


SECTIONS: dict[str, Callable[[ConfigDict], None]] = {"stable_diffusion": _stable_diffusion}
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
    c.resolution = 512  # pixels; height and width of the images

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
    c.optimizer.generator_beta1 = 0.0  # of the generator's first moment; 0: it has none, as the fake network has none
    c.optimizer.beta2 = 0.999
    c.optimizer.eps = 1e-6
    c.optimizer.clip_value = config_dict.placeholder(float)  # largest entry of a gradient; 1 in pure bf16
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

    # The table at the end, and the student's part of it as it trains.
    c.evaluate = ConfigDict()
    c.evaluate.metric = ""  # a metric network, such as "bundled:digits_metric"; empty: no table
    c.evaluate.every = 0  # updates, a multiple of log_every: measures the student for metrics.jsonl; 0: not
    c.evaluate.samples = 2000
    c.evaluate.teacher_steps = 50  # steps of the teacher's sampler
    c.evaluate.teacher_guidance = 7.5  # of classifier-free guidance
    return c


def check(config: ConfigDict) -> None:
    """Checks the settings of when a run writes what.

    Raises:
      UserError: one of them makes no sense.
    """
    for key in ("images", "log_every", "sample_every", "checkpoint_every", "max_bad_steps", "sample_images"):
        if config[key] < 1:
            raise UserError(f"config key {key} is {config[key]}: use a positive number")
    if not config.checkpoint_minutes >= 0:
        raise UserError(f"config key checkpoint_minutes is {config.checkpoint_minutes}: use 0 or a positive number")
    if config.on_failed_save not in ("continue", "stop"):
        raise UserError(f"config key on_failed_save is {config.on_failed_save!r}: use continue or stop")
    every = config.evaluate.every
    if every < 0 or every % config.log_every:
        raise UserError(f"config key evaluate.every is {every}: use 0, or a multiple of log_every")
    if every and not config.evaluate.metric:
        raise UserError("config key evaluate.metric is empty, and evaluate.every needs one: name a metric network")
    Keep.from_config(config.to_dict())
