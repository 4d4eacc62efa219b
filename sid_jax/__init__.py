"""Score identity Distillation (SiD) in JAX/Flax: few-step generators from pretrained diffusion models."""

__version__ = "0.1.0"
