"""The train step with the UNets of Stable Diffusion 1.5 and XL, tiny, against PyTorch autograd through diffusers'.

Losses and gradients of both updates: the data-free ones, and those with the GAN terms, whose logits the reference takes
from a hook on diffusers' middle block.
"""

import dataclasses

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from processes import STABLE_DIFFUSION, stable_diffusion
from repeated_draws import draws_of, gradients
from torch_reference import Reference

from sid_jax import sid
from sid_jax.formats.state_dict import from_params
from sid_jax.teachers import open_component

BATCH, SIZE, TEXT, LENGTH, VOCABULARY = 2, 8, 12, 3, 9
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
SD = {
    "sample_size": SIZE,
    "block_out_channels": (8, 16),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "cross_attention_dim": TEXT,
    "norm_num_groups": 4,
}
SDXL = {
    **SD,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 6 * 4 + TEXT,
}
TIME_IDS = np.array([64, 64, 0, 0, 64, 64], np.float32)
GAN = sid.Gan(lambda_d=0.8, lambda_g=20.0)


class DiffusersNet(torch.nn.Module):
    """A UNet as `torch_reference.Reference` calls it."""

    def __init__(self, unet):
        super().__init__()
        self.unet = unet.double()
        self.unet.mid_block.register_forward_hook(lambda module, inputs, output: setattr(self, "seen", output))

    def forward(self, x, t, cond):
        text, pooled = cond
        added = {"text_embeds": pooled, "time_ids": torch.tensor(TIME_IDS).expand(len(x), -1)}
        return self.unet(x, t, text, added_cond_kwargs=added).sample

    def features(self, x, t, cond):
        self(x, t, cond)
        return self.seen

    def gradients(self):
        return {name: p.grad.numpy() for name, p in self.unet.named_parameters()}


def make(config, seed):
    torch.manual_seed(seed)
    unet = diffusers.UNet2DConditionModel(**config)
    with torch.no_grad():
        for parameter in unet.parameters():  # norms and biases start at 1 and 0
            parameter += 0.05 * torch.randn(parameter.shape)
    return unet


def networks_of(graph, xl):
    def denoiser(params, x, t, cond, dropout_key):
        return nnx.merge(graph, params)(x, t, dropout_key=dropout_key, **cond)

    def discriminator(params, x, t, cond, dropout_key):
        unet = nnx.merge(graph, params)
        output, features = unet.with_features(x, t, dropout_key=dropout_key, **cond)
        return output, unet.logits(features)

    def encode(table, tokens):
        text = jnp.asarray(table)[tokens]
        if not xl:
            return {"encoder_hidden_states": text}
        added = {"text_embeds": text.max(axis=1), "time_ids": jnp.tile(TIME_IDS, (len(text), 1))}
        return {"encoder_hidden_states": text, "added_cond_kwargs": added}

    return sid.Networks(denoiser, encode, discriminator)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "strategy", "gan"),
    [
        pytest.param(SD, "lsg", sid.Gan(), id="sd-data-free"),
        pytest.param(SD, "lsg", GAN, id="sd-gan"),
        pytest.param(SD, "zero_cfg", GAN, id="sd-gan-zero"),
        pytest.param(SD, "anti_cfg", GAN, id="sd-gan-anti"),
        pytest.param(SDXL, "lsg", sid.Gan(), id="sdxl-data-free"),
        pytest.param(SDXL, "zero_cfg", sid.Gan(), id="sdxl-zero"),
        pytest.param(SDXL, "lsg", GAN, id="sdxl-gan"),
        pytest.param(SDXL, "zero_cfg", GAN, id="sdxl-gan-zero"),
        pytest.param(SDXL, "anti_cfg", GAN, id="sdxl-gan-anti"),
    ],
)
def test_losses_and_gradients(config, strategy, gan, tmp_path):
    torch.set_num_threads(1)
    unets = [make(config, seed) for seed in range(3)]
    components = []
    for number, unet in enumerate(unets):
        unet.save_pretrained(tmp_path / str(number))
        components.append(open_component(tmp_path / str(number), "UNet2DConditionModel").load())
    few_step, times = sid.FewStep(stable_diffusion(), 1, 625), sid.Uniform()
    guidance = dataclasses.replace(sid.preset(strategy, 1.5), prompt_dropout=0.5 if strategy == "lsg" else 0.0)
    settings = sid.Settings(
        batch=BATCH, shape=(SIZE, SIZE, 4), seed=3, loss=sid.Loss(loss_scale=100.0), guidance=guidance, gan=gan,
        optimizer=sid.Optimizer(fake_lr=1e-2, generator_lr=1e-2, eps=1.0),
    )  # fmt: skip
    rng = np.random.default_rng(5)
    table = rng.normal(size=(VOCABULARY, TEXT)).astype(np.float32)
    tokens = {name: rng.integers(0, VOCABULARY, (BATCH, LENGTH)) for name in ("fake", "generator", "real")}
    tokens["empty"] = np.zeros((1, LENGTH), int)
    real = rng.normal(size=(BATCH, SIZE, SIZE, 4)).astype(np.float32)

    step = sid.jit_train_step(
        networks_of(components[0].graphdef, config is SDXL), few_step, times, settings, compiler_options=QUICK
    )
    teacher, fake, generator = (component.params for component in components)
    state = dataclasses.replace(
        sid.TrainState.create(teacher), fake=jax.tree.map(jnp.copy, fake), generator=jax.tree.map(jnp.copy, generator)
    )
    batch = sid.Batch(tokens["fake"], tokens["generator"], tokens["empty"], sid.Real(real, tokens["real"]))
    new, metrics = step(state, sid.Frozen(teacher, table), batch)

    reference = Reference(
        STABLE_DIFFUSION, table, tokens["empty"], num_steps=1, start=few_step.start, noise="fresh", first="scaled",
        alpha=1.0, weighting="sid", loss_scale=100.0, fake_lr=1e-2, generator_lr=1e-2, eps=1.0, elements=real[0].size,
        lambda_d=gan.lambda_d, lambda_g=gan.lambda_g,
        **{name: getattr(guidance, name) for name in ("kappa1", "kappa2", "kappa3", "kappa4", "drop_before_generator")},
    )  # fmt: skip
    draws = draws_of(settings, few_step, times, 0) | {"real": real.transpose(0, 3, 1, 2).astype(np.float64)}
    expected = reference.iteration(*(DiffusersNet(unet) for unet in unets), tokens, draws, 0)

    for which, old in (("fake", fake), ("generator", generator)):
        assert float(metrics[f"{which}_loss"]) == pytest.approx(expected[f"{which}_loss"], rel=1e-4)
        found = gradients(old, getattr(new, which), getattr(new, f"{which}_optimizer").nu, settings.optimizer.beta2)
        found = dict(from_params(components[0].module, found))
        wanted = expected[f"{which}_gradients"]
        assert found.keys() == wanted.keys()
        total = np.sqrt(sum(np.square(value).sum() for value in wanted.values()))
        error = np.sqrt(sum(np.square(found[name] - wanted[name]).sum() for name in wanted))
        assert error <= 1e-4 * total
        for name, value in wanted.items():  # each tensor too, but for those whose gradient is rounding
            assert np.linalg.norm(found[name] - value) <= 1e-3 * max(np.linalg.norm(value), 1e-4 * total), name
