"""The family of EDM by the commands as they are: distilled with and without real images, and from a student on."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict
from PIL import Image
from training_runs import metrics_of, student_bits

import sid_jax.config
from sid_jax import export, sample, train
from sid_jax.errors import UserError
from sid_jax.experiment import build
from sid_jax.experiment.networks import Regularization, first_state, networks_of
from sid_jax.experiment.student import open_run, open_start
from sid_jax.formats.edm_folder import Description, write_network
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.sid import Optimizer
from sid_jax.teachers import build as component

KWARGS = {
    "img_resolution": 8, "img_channels": 3, "label_dim": 3, "model_type": "SongUNet", "model_channels": 8,
    "channel_mult": [1], "num_blocks": 1, "attn_resolutions": [8], "augment_dim": 9, "dropout": 0.5,
}  # fmt: skip
CONFIG = """
import sid_jax.config

def get_config():
    c = sid_jax.config.default("edm")
    c.teacher = {teacher!r}
    c.resolution, c.batch, c.images = 8, 4, 12
    c.augment = 0.5
    c.optimizer.fake_lr = c.optimizer.generator_lr = 1e-3
    c.log_every, c.sample_images = 1, 3
    return c
"""
SIDA = [
    "--config.gan.lambda_d=1", "--config.gan.lambda_g=0.01", "--config.gan.group=2", "--config.optimizer.clip_fake=1",
    "--config.evaluate.pictures=0",
]  # fmt: skip


def write_teacher(folder, **changes):
    """A teacher with random parameters."""
    made = component("EDMPrecond", KWARGS | changes)
    rng = np.random.default_rng(0)
    # Initial weights of EDM's networks are so small that what is dropped out would be lost in rounding.
    params = jax.tree.map(lambda p: jnp.asarray(0.2 * rng.normal(size=p.shape), jnp.float32), made.params)
    made = made.with_params(params)
    folder.mkdir()
    write_network(folder, Description("EDMPrecond", KWARGS | changes, 2.5, ""), *made.state_dict(), {})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with `teacher`, `config.py`, and real `images` with labels; not to be changed."""
    folder = tmp_path_factory.mktemp("edm")
    write_teacher(folder / "teacher")
    (folder / "config.py").write_text(CONFIG.format(teacher=str(folder / "teacher")))
    (folder / "images").mkdir()
    rng, labels = np.random.default_rng(0), []
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"images/{number}.png")
        labels.append([f"{number}.png", number % 3])
    (folder / "images/dataset.json").write_text(json.dumps({"labels": labels}))
    return folder


@pytest.fixture(scope="module")
def run(place):
    """A run of SiD of 2 updates; not to be changed."""
    train.main([f"--config={place / 'config.py'}", f"--workdir={place / 'run'}", "--config.images=8"])
    return place / "run"


def config_of(place, **changes):
    config = sid_jax.config.default("edm")
    config.update_from_flattened_dict({"teacher": str(place / "teacher"), "resolution": 8, "batch": 4} | changes)
    return ConfigDict(config)


def test_sid_is_trained_exported_and_sampled(place, run, tmp_path):
    lines = metrics_of(run)
    assert [line["step"] for line in lines] == [1, 2] and lines[-1]["generator_grad_norm"] > 0
    assert all(np.isfinite(line[name]) for line in lines for name in ("fake_loss", "generator_loss"))
    assert all(line[name] > 0 for line in lines for name in ("teacher_fake_gap", "generator_teacher_gap"))
    grid, beside = Image.open(run / "samples/student-000002.png"), Image.open(run / "side_by_side.png")
    assert beside.width > 2 * grid.width and beside.height > grid.height  # with a title
    pixels = np.asarray(beside)[beside.height - grid.height :]
    assert np.any(pixels[:, : grid.width] != pixels[:, -grid.width :])  # the teacher's and the student's
    assert "Teacher beside student" in (run / "report.html").read_text()
    export.main(["--run", str(run), "--out", str(tmp_path / "exported")])
    for flag, name in ((f"--run={run}", "a"), (f"--model={tmp_path / 'exported'}", "b")):
        sample.main([flag, "--classes=0-2", "--n=1", f"--out={tmp_path / name}"])
    for file in (tmp_path / "a").glob("*.png"):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()

    # From either of them a run of SiD2A can start: generator and average are the student, the fake network the teacher.
    mesh = meshes.make_mesh()
    student = [np.asarray(leaf) for leaf in jax.tree.leaves(open_run(str(run)).params)]
    for name in (run, tmp_path / "exported"):
        config = config_of(place, student=str(name))
        teacher = build.open_teacher(config)
        state, base = first_state(teacher, Optimizer(), jnp.float32, mesh, open_start(config, teacher, mesh))
        for tree in (state.generator, state.ema):
            assert all(map(np.array_equal, jax.tree.leaves(tree), student))
        expected = jax.tree.leaves(nnx.filter_state(base, nnx.Param))
        assert all(map(np.array_equal, jax.tree.leaves(state.fake), expected))
    assert open_start(config_of(place), teacher, mesh) is None


def test_sida_goes_on_to_the_bit(place, tmp_path):
    """With real images, augmentation, dropout, groups and clipping."""
    arguments = [f"--config={place / 'config.py'}", f"--config.real.source={place / 'images'}", *SIDA]
    train.main([*arguments, f"--workdir={tmp_path / 'straight'}", "--config.checkpoint_every=2"])
    shutil.copytree(tmp_path / "straight", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut/checkpoints/3")
    train.main([*arguments, f"--workdir={tmp_path / 'cut'}"])
    assert student_bits(tmp_path / "straight") == student_bits(tmp_path / "cut")
    lines = metrics_of(tmp_path / "straight")
    assert lines == metrics_of(tmp_path / "cut") and len(lines) == 3
    assert all(0 < line["discriminator_loss"] < 100 and line["adversarial_loss"] > 0 for line in lines)


def test_a_student_of_another_network(place, tmp_path):
    write_teacher(tmp_path / "other", num_blocks=2)
    config = config_of(place, student=str(tmp_path / "other"))
    with pytest.raises(UserError, match=r"^config key student: .*other has other tensors than the teacher "):
        open_start(config, build.open_teacher(config), meshes.make_mesh())


def test_augmentation_is_of_teachers_that_know_it(place, tmp_path):
    write_teacher(tmp_path / "plain", augment_dim=0)
    config = config_of(place, teacher=str(tmp_path / "plain"), augment=0.1)
    with pytest.raises(UserError, match=r"^config key augment is 0\.1, but the teacher .* without augmentation"):
        build.regularization_of(config, build.open_teacher(config))
    assert build.regularization_of(config_of(place, augment=0.0, dropout=0.0), build.open_teacher(config)) == (0, False)


def test_dropout_and_augmentation_of_the_networks(place):
    """A pass repeated with another key differs, more at a higher rate; at rate 0 it does not."""
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(2, 8, 8, 3)).astype(np.float32), jnp.ones(2)
    cond, keys = {"class_labels": jnp.arange(2)}, [jax.random.key(seed) for seed in range(8)]
    spread = {}
    for rate in (None, 0.9, 0.0):
        teacher = build.open_teacher(config_of(place, dropout=rate), "denoiser")
        networks = networks_of(teacher, 8, regularization=Regularization(augment=1.0, drops_out=True))
        call = jax.jit(lambda key, teacher=teacher, networks=networks: networks.denoiser(
            teacher.denoiser.whole, x, t, cond, key
        ))  # fmt: skip
        spread[rate] = np.ptp([call(key) for key in keys], axis=0).mean()
    assert spread[0.9] > spread[None] > 0 == spread[0.0]
    images, told = networks.augment(keys[0], x, cond)
    assert told["augment_labels"].shape == (2, 9) and told["class_labels"] is cond["class_labels"]
    assert np.any(images != x)
    assert networks_of(teacher, 8).augment is None and not networks_of(teacher, 8).drops_out


@pytest.mark.parametrize(("matmul", "count"), [("highest", 1), ("default", 0)])
def test_products_in_full_float32(place, matmul, count):
    teacher = build.open_teacher(config_of(place, **{"precision.matmul": matmul}), "denoiser")
    call = networks_of(teacher, 8).denoiser
    arguments = (
        teacher.denoiser.whole,
        jnp.zeros((1, 8, 8, 3)),
        jnp.ones(1),
        {"class_labels": jnp.zeros(1, int)},
        None,
    )
    text = jax.jit(call, static_argnums=4).lower(*arguments).as_text()
    convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert convolutions and all(("HIGHEST" in line) is bool(count) for line in convolutions)


def test_its_config_has_no_guidance(place, tmp_path):
    with pytest.raises(UserError, match=r"unknown config key guidance\.scale"):
        train.main([f"--config={place / 'config.py'}", f"--workdir={tmp_path}", "--config.guidance.scale=2"])
    with pytest.raises(UserError, match=r"config key precision\.matmul is 'high': use default or highest"):
        build.matmul_of(config_of(place, **{"precision.matmul": "high"}))
