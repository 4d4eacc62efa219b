"""The networks under their preconditioners against PyTorch: outputs and gradients, with random weights, float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch_edm import PRECONDITIONERS, varied

from sid_jax.formats.state_dict import Stored, from_params, to_params
from sid_jax.models import Execution
from sid_jax.teachers import build

SIZE = {"img_resolution": 8, "img_channels": 3}
DDPMPP = {
    **SIZE, "model_type": "SongUNet", "model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1,
    "attn_resolutions": [4], "embedding_type": "positional", "encoder_type": "standard", "decoder_type": "standard",
    "channel_mult_noise": 1, "resample_filter": [1, 1],
}  # fmt: skip
NCSNPP = {
    **DDPMPP, "channel_mult": [2, 1, 1], "embedding_type": "fourier", "encoder_type": "residual",
    "channel_mult_noise": 2, "resample_filter": [1, 3, 3, 1], "attn_resolutions": [8],
}  # fmt: skip
ADM = {
    **SIZE, "model_type": "DhariwalUNet", "model_channels": 32, "channel_mult": [1, 4], "num_blocks": 1,
    "attn_resolutions": [4],
}  # fmt: skip
WIDE = {"model_channels": 64}
LABELS, AUGMENT = {"label_dim": 5}, {"augment_dim": 9}
SIGMAS = np.array([0.002, 0.03, 0.9, 80], np.float32)
SMALLEST = {"channel_mult": [1], "attn_resolutions": [1]}


def converted(theirs, class_name, init_kwargs, **options):
    """PyTorch's preconditioner as ours."""
    component = build(class_name, init_kwargs, **options)
    tensors = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    stored = {name: Stored(tensor.shape, str(tensor.dtype)) for name, tensor in tensors.items()}
    state = to_params(component.module, stored, tensors.items(), where="reference")
    return component, *nnx.split_state(state, nnx.Param, ...)


def check(actual, expected, what, tolerance=1e-5):
    assert actual.shape == expected.shape, what
    assert np.isfinite(actual).all(), what
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert error <= tolerance, f"{what}: {error:.1e}"


@pytest.mark.parametrize(
    ("class_name", "init_kwargs", "execution"),
    [
        pytest.param("EDMPrecond", {**DDPMPP, **LABELS, **AUGMENT}, None, id="ddpmpp"),
        pytest.param("EDMPrecond", NCSNPP, None, id="ncsnpp"),
        pytest.param("EDMPrecond", {**ADM, **LABELS}, None, id="adm"),
        pytest.param("VPPrecond", {**DDPMPP, **SMALLEST, **AUGMENT}, Execution(remat="full"), id="vp"),
        pytest.param("VEPrecond", {**NCSNPP, **SMALLEST, **LABELS, **AUGMENT}, None, id="ve"),
        pytest.param("iDDPMPrecond", {**ADM, **SMALLEST, **WIDE, **AUGMENT}, Execution(remat="dots"), id="iddpm"),
    ],
)
def test_outputs_and_gradients_are_pytorch_s(class_name, init_kwargs, execution, compiled):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    theirs = varied(PRECONDITIONERS[class_name](**init_kwargs))
    rng = np.random.default_rng(1)
    batch = len(SIGMAS)
    noise, weights = (rng.standard_normal((batch, 3, 8, 8)).astype(np.float32) for _ in range(2))
    x = noise * np.sqrt(SIGMAS**2 + 0.25)[:, None, None, None]
    labels = np.array([-1, 0, 3, 4], np.int32)
    augment = rng.standard_normal((batch, 9)).astype(np.float32) if "augment_dim" in init_kwargs else None

    told = torch.from_numpy(np.eye(5, dtype=np.float32)[labels] * (labels >= 0)[:, None])
    inputs = torch.from_numpy(x).requires_grad_()
    output = theirs(inputs, torch.from_numpy(SIGMAS), told, None if augment is None else torch.from_numpy(augment))
    (output * torch.from_numpy(weights)).sum().backward()

    component, params, constants = converted(theirs, class_name, init_kwargs, execution=execution)

    def run(params, x):
        module = nnx.merge(component.graphdef, params, constants)
        output, features = module.with_features(x, SIGMAS, class_labels=labels, augment_labels=augment)
        return jnp.sum(output * np.moveaxis(weights, 1, -1)), (output, features)

    step = compiled(jax.value_and_grad(run, argnums=(0, 1), has_aux=True), params, np.moveaxis(x, 1, -1))
    (_, (ours, features)), (of_params, of_x) = step(params, np.moveaxis(x, 1, -1))

    def nchw(array):
        return np.moveaxis(np.asarray(array), -1, 1)

    check(nchw(ours), output.detach().numpy(), "output")
    check(nchw(features), theirs.model.features.detach().numpy(), "features")
    check(nchw(of_x), inputs.grad.numpy(), "gradient of the images")
    whole = nnx.merge_state(of_params, constants)
    gradients = dict(from_params(component.module, whole))
    for name, parameter in theirs.named_parameters():
        check(gradients[name], parameter.grad.numpy(), name)
