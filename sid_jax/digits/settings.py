"""The settings of the teachers of digits, as their configs have them."""

from sid_jax.runtime.cli.settings import Chapter, Setting

MODELS = ("stable_diffusion", "edm")

ANY = Chapter(
    "Any teacher of digits",
    {
        "model": Setting(
            "stable_diffusion", "what is made: a Stable Diffusion, in latents, or an EDM, in pixels", MODELS
        ),
        "seed": Setting(0, "what all random draws derive from", "[0, 2^64)"),
        "data": Setting("mnist", "a tensorflow_datasets name, or an .npz file with images and labels"),
        "classifier.steps": Setting(1500, "updates of the metric network", "[1, 2^53]"),
        "classifier.batch": Setting(128, "images an update", "[1, 2^20]"),
        "classifier.learning_rate": Setting(2e-3, "learning rate of the metric network, at its peak", "[0, 1e30]"),
        "classifier.deform": Setting(
            0.0, "how much the pictures that it learns from are turned, sheared and stretched", "[0, 1)"
        ),
    },
)

STABLE_DIFFUSION = Chapter(
    "A small Stable Diffusion (configs/digits_teacher.py)",
    {
        "autoencoder.channels": Setting(
            (8, 16, 32, 64), "channels of each level, of which each but the last halves the resolution", "[1, 2^20]"
        ),
        "autoencoder.latent_channels": Setting(6, "channels of a latent", "[1, 2^20]"),
        "autoencoder.kl_weight": Setting(0.005, "weight of the Kullback-Leibler divergence in the loss", "[0, 1e9]"),
        "autoencoder.steps": Setting(2000, "updates of it", "[1, 2^53]"),
        "autoencoder.batch": Setting(32, "images an update", "[1, 2^20]"),
        "autoencoder.learning_rate": Setting(2e-3, "its learning rate, at its peak", "[0, 1e30]"),
        "diffusion.channels": Setting((64,), "channels of the UNet, of each level", "[1, 2^20]"),
        "diffusion.heads": Setting(4, "heads of the UNet's attention", "[1, 2^20]"),
        "diffusion.text_width": Setting(64, "channels of the text encoder", "[1, 2^20]"),
        "diffusion.text_layers": Setting(2, "layers of the text encoder", "[1, 1000]"),
        "diffusion.max_tokens": Setting(16, "tokens of a prompt", "[1, 1000]"),
        "diffusion.prompt_dropout": Setting(0.1, "share of the prompts that are dropped in training", "[0, 1]"),
        "diffusion.steps": Setting(10_000, "updates of UNet and text encoder", "[1, 2^53]"),
        "diffusion.batch": Setting(64, "images an update", "[1, 2^20]"),
        "diffusion.learning_rate": Setting(1e-3, "their learning rate, at its peak", "[0, 1e30]"),
        "diffusion.ema_decay": Setting(0.9995, "decay of the average of the parameters in an update", "[0, 1)"),
        "evaluate.guidance": Setting(
            (1.0, 1.25, 1.5, 2.0, 3.0), "scales that the teacher is measured at", "[-1e4, 1e4]"
        ),
        "evaluate.steps": Setting(50, "steps of its sampler", "[1, 10^4]"),
        "evaluate.samples": Setting(2000, "images that it is measured on", "[1, 10^6]"),
    },
)

EDM = Chapter(
    "A small EDM, in pixels (configs/edm_digits_teacher.py)",
    {
        "network.resolution": Setting(16, "height and width of the images in pixels", "[1, 8192]"),
        "network.channels": Setting(16, "channels of the first level", "[1, 2^20]"),
        "network.multiples": Setting((1, 2, 2), "multiples of the channels, of each level", "[1, 2^20]"),
        "network.blocks": Setting(1, "blocks of each level", "[1, 2^20]"),
        "network.dropout": Setting(0.0, "dropout in training; so small a network does not learn by heart", "[0, 1)"),
        "diffusion.augment": Setting(0.03, "probability of each transform of the images", "[0, 1]"),
        "diffusion.steps": Setting(12_000, "updates of it", "[1, 2^53]"),
        "diffusion.batch": Setting(64, "images an update", "[1, 2^20]"),
        "diffusion.learning_rate": Setting(3e-3, "learning rate, at its peak", "[0, 1e30]"),
        "diffusion.ema_decay": Setting(0.9995, "decay of the average of the parameters in an update", "[0, 1)"),
        "evaluate.steps": Setting((18,), "steps of Heun's sampler that the teacher is measured with", "[1, 10^4]"),
        "evaluate.samples": Setting(2000, "images that it is measured on", "[1, 10^6]"),
    },
    {"model": "edm"},
)
