"""The networks under their preconditioners against PyTorch: outputs and gradients, with random weights, float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch_edm import PRECONDITIONERS, varied

from sid_jax.families.edm_published import PUBLISHED
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
SMALLEST = {"channel_mult": [1], "attn_resolutions": []}


def converted(theirs, class_name, init_kwargs, **options):
    """PyTorch's preconditioner as ours."""
    component = build(class_name, init_kwargs, **options)
    tensors = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    stored = {name: Stored(tensor.shape, str(tensor.dtype)) for name, tensor in tensors.items()}
    state = to_params(component.module, stored, tensors.items(), where="reference")
    return component, *nnx.split_state(state, nnx.Param, ...)


def check(actual, expected, what, tolerance):
    assert actual.shape == expected.shape, what
    assert np.isfinite(actual).all(), what
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert error <= tolerance, f"{what}: {error:.1e}"
    return error


def compare(class_name, init_kwargs, execution, sigmas=SIGMAS, tolerance=1e-5):
    """Holds output, features and all gradients to PyTorch's, and says how large the largest errors are."""
    torch.manual_seed(0)
    theirs = varied(PRECONDITIONERS[class_name](**init_kwargs))
    rng = np.random.default_rng(1)
    batch, side = len(sigmas), init_kwargs["img_resolution"]
    noise, weights = (rng.standard_normal((batch, 3, side, side)).astype(np.float32) for _ in range(2))
    x = noise * np.sqrt(sigmas**2 + 0.25)[:, None, None, None]
    labels = np.array([3, -1, 0, 4], np.int32)[:batch]
    augment = rng.standard_normal((batch, 9)).astype(np.float32) if "augment_dim" in init_kwargs else None

    classes = np.arange(init_kwargs.get("label_dim", 0), dtype=np.int32)
    told = torch.from_numpy((labels[:, None] == classes).astype(np.float32))
    inputs = torch.from_numpy(x).requires_grad_()
    output = theirs(inputs, torch.from_numpy(sigmas), told, None if augment is None else torch.from_numpy(augment))
    (output * torch.from_numpy(weights)).sum().backward()

    component, params, constants = converted(theirs, class_name, init_kwargs, execution=execution)

    def run(params, x):
        module = nnx.merge(component.graphdef, params, constants)
        output, features = module.with_features(x, sigmas, class_labels=labels, augment_labels=augment)
        return jnp.sum(output * np.moveaxis(weights, 1, -1)), (output, features)

    step = jax.jit(jax.value_and_grad(run, argnums=(0, 1), has_aux=True))
    (_, (ours, features)), (of_params, of_x) = step(params, np.moveaxis(x, 1, -1))

    def nchw(array):
        return np.moveaxis(np.asarray(array), -1, 1)

    errors = [
        check(nchw(ours), output.detach().numpy(), "output", tolerance),
        check(nchw(features), theirs.model.features.detach().numpy(), "features", tolerance),
        check(nchw(of_x), inputs.grad.numpy(), "gradient of the images", tolerance),
    ]
    gradients = dict(from_params(component.module, nnx.merge_state(of_params, constants)))
    named = theirs.named_parameters()
    errors.append(max(check(gradients[name], each.grad.numpy(), name, tolerance) for name, each in named))
    print("output, features, gradient of images, of parameters:", " ".join(f"{error:.1e}" for error in errors))


@pytest.mark.parametrize(
    ("class_name", "init_kwargs", "execution"),
    [
        pytest.param("EDMPrecond", {**DDPMPP, **LABELS, **AUGMENT}, None, id="ddpmpp"),
        pytest.param("EDMPrecond", NCSNPP, None, id="ncsnpp"),
        pytest.param("EDMPrecond", {**ADM, **LABELS}, None, id="adm"),
        pytest.param("VPPrecond", {**DDPMPP, **SMALLEST, **AUGMENT}, Execution(remat="full"), id="vp"),
        pytest.param("VEPrecond", {**NCSNPP, **SMALLEST, **LABELS, **AUGMENT}, None, id="ve"),
        pytest.param("iDDPMPrecond", {**ADM, **SMALLEST, **WIDE, **AUGMENT}, None, id="iddpm"),
    ],
)
def test_outputs_and_gradients_are_pytorch_s(class_name, init_kwargs, execution):
    torch.set_num_threads(1)
    compare(class_name, init_kwargs, execution)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["edm-cifar10-32x32-cond-vp", "edm-ffhq-64x64-uncond-ve", "edm-imagenet-64x64-cond-adm"]
)
def test_published_shapes(name):
    compare("EDMPrecond", PUBLISHED[name], Execution(), np.array([0.9], np.float32), 1e-4)
