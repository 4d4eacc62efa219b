"""EDM's teachers: from a pickle or a folder to a teacher, and to folders that PyTorch's classes open."""

import json
import re
import sys
import types

import edm_files
import jax
import numpy as np
import pytest
import torch
import torch_edm
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from sid_jax import convert, sample
from sid_jax.errors import UserError
from sid_jax.families.edm import sampler_of
from sid_jax.families.edm_published import PUBLISHED
from sid_jax.families.edm_recorded import check_recorded
from sid_jax.families.open import open_source, open_teacher
from sid_jax.formats.fingerprint import fingerprint
from sid_jax.models.edm import EDMPrecondConfig
from sid_jax.sid import EDM, Condition, FewStep, noise_from_array
from sid_jax.teachers.samplers.heun import Churn, Heun
from sid_jax.teachers.teacher import Export

KWARGS = {
    "img_resolution": 8, "img_channels": 3, "label_dim": 5, "use_fp16": False, "model_type": "SongUNet",
    "model_channels": 8, "channel_mult": [2, 1], "num_blocks": 1, "attn_resolutions": [8], "augment_dim": 9,
    "embedding_type": "fourier", "encoder_type": "residual", "decoder_type": "standard", "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1], "dropout": 0.13,
}  # fmt: skip
ADM = {
    "img_resolution": 8, "img_channels": 3, "label_dim": 0, "model_type": "DhariwalUNet", "model_channels": 64,
    "channel_mult": [1, 1], "num_blocks": 1, "attn_resolutions": [4], "channel_mult_emb": 1,
}  # fmt: skip
SETTINGS = {"teacher": "a.pkl", "batch": 8, "resolution": 8, "gan": {"lambda_g": 0.0}, "family": "edm"}


def reference(kind="EDMPrecond", kwargs=KWARGS, seed=0):
    """A network of the published form with random weights."""
    torch.manual_seed(seed)
    network = torch_edm.PRECONDITIONERS[kind](**kwargs).eval()
    network._init_kwargs = kwargs
    return network


@pytest.fixture(scope="module")
def network():
    return reference()


@pytest.fixture(scope="module")
def pickled(network, tmp_path_factory):
    """A teacher's pickle; not to be changed."""
    file = tmp_path_factory.mktemp("pickled") / "a.pkl"
    file.write_bytes(edm_files.dumps(edm_files.contents(network)))
    return file


@pytest.fixture(scope="module")
def teacher(pickled):
    return open_teacher(open_source(str(pickled))).load("denoiser")


@pytest.fixture(scope="module")
def converted(pickled, tmp_path_factory):
    """The same as a folder; not to be changed."""
    folder = tmp_path_factory.mktemp("converted") / "out"
    convert.main([str(pickled), "--out", str(folder)])
    return folder


def assert_same_tensors(folder, expected, change=lambda name, tensor: tensor):
    found = load_file(folder / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], change(name, tensor)), name


def images_of(network, labels=5):
    torch.manual_seed(1)
    x, sigma = torch.randn(3, 3, 8, 8), torch.tensor([0.1, 2.5, 70])
    with torch.no_grad():
        return network(x, sigma, torch.eye(labels)[:3] if labels else None)


def test_a_pickle_is_converted_to_the_bit(network, converted):
    assert_same_tensors(converted, network.state_dict())
    header = (converted / "model.safetensors").read_bytes()
    names = list(json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")]))[1:]
    assert names == list(network.state_dict())
    config = json.loads((converted / "config.json").read_text())
    assert config == {
        "class_name": "EDMPrecond", "init_kwargs": KWARGS, "sigma_init": 2.5, "licence": "CC BY-NC-SA 4.0",
    }  # fmt: skip
    again = torch_edm.EDMPrecond(**config["init_kwargs"]).eval()
    again.load_state_dict(load_file(converted / "model.safetensors"), strict=True)
    assert torch.equal(images_of(again), images_of(network))


@pytest.mark.parametrize(("kind", "kwargs"), [("iDDPMPrecond", ADM), ("VEPrecond", {**KWARGS, "label_dim": 0})])
def test_other_preconditioners_are_converted_and_sampled_but_not_distilled(tmp_path, kind, kwargs):
    network = reference(kind, kwargs)
    (tmp_path / "a.pkl").write_bytes(edm_files.dumps(edm_files.contents(network)))
    convert.main([str(tmp_path / "a.pkl"), "--out", str(tmp_path / "out")])
    assert_same_tensors(tmp_path / "out", network.state_dict())
    bundle = open_source(str(tmp_path / "out"))
    sampler = open_teacher(bundle).sampler()
    assert sampler.sigma_min >= (0.02 if kind == "VEPrecond" else 0.002) and sampler.sigma_max == 80
    assert len(sampler.levels) == (1001 if kind == "iDDPMPrecond" else 0)
    with pytest.raises(UserError, match=f"is {kind}: such teachers can be sampled from, but not distilled; .*EDMPrec"):
        open_teacher(bundle, "edm")


def test_folder_and_pickle_are_the_same_teacher(teacher, converted):
    bundle = open_source(str(converted))
    other = open_teacher(bundle, "edm").load("denoiser")
    for one, another in zip(
        jax.tree.leaves(teacher.denoiser.whole), jax.tree.leaves(other.denoiser.whole), strict=True
    ):
        np.testing.assert_array_equal(one, another)
    assert other.conditions.count == 5 and other.space.shape(8) == (8, 8, 3)
    assert other.process == teacher.process and other.process.default_start(1) == 2.5
    assert "config" not in bundle.about


def test_files_beside_a_pickle_are_not_its_own(teacher, pickled):
    (pickled.parent / "config.json").write_text("{}")
    assert teacher.denoiser.name == "a.pkl" and teacher.denoiser.files() == (pickled,)
    assert teacher.fingerprints()["a.pkl"] == fingerprint([pickled])


def test_samplers_are_those_that_the_teachers_are_measured_with():
    def sampler(name, *given):
        return sampler_of("EDMPrecond", EDMPrecondConfig.from_dict(PUBLISHED[f"edm-{name}"]), EDM(), *given)

    assert sampler("cifar10-32x32-cond-vp") == Heun(18) and sampler("cifar10-32x32-uncond-ve", 7, 1.0) == Heun(7)
    assert sampler("ffhq-64x64-uncond-ve") == Heun(40)
    published = Heun(256, churn=Churn(40, 0.05, 50, 1.003))
    assert sampler("imagenet-64x64-cond-adm") == sampler("imagenet-64x64-cond-adm", 256) == published
    assert sampler("imagenet-64x64-cond-adm", 32) == Heun(32)
    with pytest.raises(UserError, match="guidance of 2 "):
        sampler("cifar10-32x32-cond-vp", None, 2)


CHANGES = [
    ("model.enc.8x8_block0", "num_heads", 2),
    ("model.enc.8x8_block0", "skip_scale", 1.0),
    ("model.enc.8x8_block0", "adaptive_scale", True),
    ("model.enc.8x8_block0", "in_channels", 9),
    ("model.enc.8x8_block0", "emb_channels", 9),
    ("model.enc.4x4_down.conv0", "down", False),
    ("model.enc.4x4_aux_residual", "fused_resample", False),
    ("model.dec.8x8_up.conv0", "up", False),
    ("model.enc.8x8_block0.norm0", "num_groups", 1),
    ("model.enc.8x8_block0.norm0", "eps", 1e-5),
    ("model.map_noise", "class", "PositionalEmbedding"),
    ("model", "class", "DhariwalUNet"),
    ("", "sigma_data", 1.0),
    ("", "label_dim", None),
]


@pytest.mark.parametrize(("path", "name", "value"), CHANGES)
def test_what_a_file_records_is_held_against_our_network(teacher, pickled, path, name, value):
    recorded = open_source(str(pickled)).recorded
    assert name in recorded[path]
    check_recorded(teacher.denoiser, recorded, "a.pkl")
    changed = recorded | {path: recorded[path] | {name: value}}
    with pytest.raises(UserError, match=rf"a\.pkl: {re.escape(path)}.*{name} is .*; the network here has"):
        check_recorded(teacher.denoiser, changed, "a.pkl")


def test_a_positional_embedding_and_a_module_too_many(tmp_path, teacher, pickled):
    network = reference("EDMPrecond", ADM)
    network.model.map_noise.endpoint = True
    (tmp_path / "a.pkl").write_bytes(edm_files.dumps({"ema": network}))
    with pytest.raises(UserError, match=r"model\.map_noise: endpoint is True; the network here has False"):
        open_teacher(open_source(str(tmp_path / "a.pkl")))
    recorded = open_source(str(pickled)).recorded | {"model.enc.8x8_block9": {"class": "UNetBlock"}}
    with pytest.raises(UserError, match="8x8_block9 is a UNetBlock, which the network here has not"):
        check_recorded(teacher.denoiser, recorded, "a.pkl")


def test_a_filter_that_is_another_is_an_error_on_reading_and_on_converting(tmp_path):
    network = reference()
    network.model.enc["4x4_down"].conv0.resample_filter[0, 0, 1, 1] = 0.2
    (tmp_path / "a.pkl").write_bytes(edm_files.dumps({"ema": network}))
    for action in (
        lambda: open_teacher(open_source(str(tmp_path / "a.pkl"))).load("denoiser"),
        lambda: convert.main([str(tmp_path / "a.pkl"), "--out", str(tmp_path / "out")]),
    ):
        with pytest.raises(UserError, match=r"enc\.4x4_down\.conv0\.resample_filter is not what the network"):
            action()
    assert [file.name for file in tmp_path.iterdir()] == ["a.pkl"]


def test_tensors_of_another_network_and_unknown_settings(tmp_path):
    network = reference()
    network._init_kwargs = {**KWARGS, "num_blocks": 2}
    (tmp_path / "a.pkl").write_bytes(edm_files.dumps({"ema": network}))
    with pytest.raises(UserError, match=r"dec\.4x4_block1: in_channels is 24; the network here has 16"):
        convert.main([str(tmp_path / "a.pkl"), "--out", str(tmp_path / "out")])
    network._init_kwargs = {**KWARGS, "sigma_shift": 2}
    (tmp_path / "a.pkl").write_bytes(edm_files.dumps({"ema": network}))
    with pytest.raises(UserError, match=r"a\.pkl/init_kwargs: .*'sigma_shift'"):
        open_teacher(open_source(str(tmp_path / "a.pkl")))


def write(teacher, folder, *, steps=1, settings=SETTINGS, **options):
    """The export of a student: its teacher with ones added; and the card."""
    params = jax.tree.map(lambda p: p + 1, teacher.denoiser.params)
    sampler = FewStep(teacher.process, steps, 2.5, **options)
    teacher.write(folder, Export(params, sampler, settings, 3))
    return (folder / "README.md").read_text(encoding="utf-8")


def test_a_student_is_opened_by_the_published_classes_and_by_us(teacher, network, tmp_path):
    card = write(teacher, tmp_path / "out")
    buffers = dict(network.named_buffers())
    assert_same_tensors(tmp_path / "out", network.state_dict(), lambda n, t: t if n in buffers else t + 1)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["sigma_init"] == 2.5 and config["init_kwargs"] == KWARGS
    torch_edm.EDMPrecond(**config["init_kwargs"]).load_state_dict(
        load_file(tmp_path / "out/model.safetensors"), strict=True
    )
    about = open_source(str(tmp_path / "out")).about
    assert about["step"] == 3 and about["config"] == SETTINGS
    assert "license: cc-by-nc-sa-4.0\n" in card and "so their licence passes to it" in card
    assert "from `a.pkl`: 3 updates, 24 images" in card
    listed = json.loads((tmp_path / "out/sid_jax_files.json").read_text())
    assert listed.keys() == {"README.md", "config.json", "model.safetensors", "sid_jax.json"}
    for file in (tmp_path / "out").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file


@pytest.mark.parametrize(
    ("steps", "options"),
    [(1, {}), (1, {"first": "unit"}), (2, {}), (3, {"noise": "ddim"}), (2, {"noise": "fixed", "first": "unit"})],
)
def test_the_lines_of_the_card_run_as_they_are(teacher, tmp_path, monkeypatch, steps, options):
    card = write(teacher, tmp_path / "out", steps=steps, **options)
    (lines,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(tmp_path / "out")
    monkeypatch.setitem(sys.modules, "training", types.SimpleNamespace(networks=torch_edm))
    monkeypatch.setitem(sys.modules, "training.networks", torch_edm)
    noises, calls = [], []

    def randn(*shape):
        shape = shape[0] if isinstance(shape[0], tuple) else shape
        drawn = np.random.default_rng(len(noises)).normal(size=shape).astype(np.float32)
        noises.extend([drawn] * (len(shape) == 4))  # the frequencies of the network are drawn, too
        return torch.from_numpy(drawn)

    monkeypatch.setattr(torch, "randn", randn)
    names = {}
    exec(compile(lines.replace("net.eval()", "net.eval()\nnet = watched(net)"), "README.md", "exec"), names | {
        "watched": lambda net: lambda x, sigma, labels: calls.append((x, sigma)) or 0.1 * x.sign() + 0 * labels.sum()
    }, names)  # fmt: skip

    # The same by our sampler, with the same noise and the same stand-in for the network.
    assert len(noises) == (steps if options.get("noise", "fresh") == "fresh" else 1)
    ours = FewStep(teacher.process, steps, 2.5, **options)
    found = ours.generate(
        lambda x, t, cond: 0.1 * jax.numpy.sign(x),
        noise_from_array(np.stack(noises * (steps // len(noises))).transpose(0, 1, 3, 4, 2)),
        Condition(None, None),
    )
    np.testing.assert_allclose(names["images"].numpy().transpose(0, 2, 3, 1), found, atol=1e-6)
    np.testing.assert_allclose([float(sigma[0]) for _, sigma in calls], ours.times, rtol=1e-6)
    scale = 1 if options.get("first") == "unit" else 2.5
    np.testing.assert_allclose(calls[0][0], noises[0] * scale, rtol=1e-6)


def test_the_licence_of_a_folder_is_passed_on(converted, tmp_path):
    convert.main([str(converted), "--out", str(tmp_path / "own"), "--licence", "Apache-2.0"])
    teacher = open_teacher(open_source(str(tmp_path / "own"))).load("denoiser")
    card = write(teacher, tmp_path / "out", settings=SETTINGS | {"teacher": "own"})
    assert json.loads((tmp_path / "out/config.json").read_text())["licence"] == "Apache-2.0"
    assert "under this licence: Apache-2.0." in card and "CC BY-NC" not in card
    config = json.loads((tmp_path / "own/config.json").read_text())
    del config["licence"]
    (tmp_path / "own/config.json").write_text(json.dumps(config))
    teacher = open_teacher(open_source(str(tmp_path / "own"))).load("denoiser")
    assert "is not said in their files" in write(teacher, tmp_path / "other", settings=SETTINGS | {"teacher": "own"})


@pytest.mark.parametrize(
    ("name", "title", "base"),
    [
        ("a.pkl", "# a, distilled into 1 step\n", None),
        ("org/name/b.pkl", "# b, distilled into 1 step\n", "org/name"),
        ("teacher", "# EDM, distilled into 1 step\n", None),
    ],
)
def test_the_head_and_the_title_of_the_card(teacher, tmp_path, name, title, base):
    card = write(teacher, tmp_path / "out", settings=SETTINGS | {"teacher": name})
    said = ModelCard(card).data.to_dict()
    assert title in card
    assert (said["license"], said["library_name"]) == ("cc-by-nc-sa-4.0", "sid_jax")
    assert said["pipeline_tag"] == "unconditional-image-generation"
    assert {"edm", "distillation", "sid_jax"} <= set(said["tags"])
    assert (said.get("base_model"), said.get("base_model_relation")) == (base, "finetune" if base else None)


def test_nothing_of_the_users_is_replaced(pickled, tmp_path):
    out = tmp_path / "out"
    command = [str(pickled), "--out", str(out)]
    convert.main(command)
    convert.main(command)  # what it wrote itself
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.txt in it is not as an export wrote it"):
        convert.main(command)
    convert.main([*command, "--overwrite"])
    assert (out / "notes.txt").read_text() == "mine"
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.txt").write_text("mine")
    for more in ([], ["--overwrite"]):
        with pytest.raises(UserError, match="not empty, and not a folder of a network of EDM's"):
            convert.main([str(pickled), "--out", str(other), *more])
    with pytest.raises(UserError, match="is there; choose another folder"):
        convert.main([str(pickled), "--out", str(pickled.parent), "--overwrite"])
    with pytest.raises(UserError, match="is there; choose another folder"):
        convert.main([str(out), "--out", str(out), "--overwrite"])
    with pytest.raises(UserError, match="what is converted are EDMPrecond"):
        convert.main(["bundled:digits", "--out", str(tmp_path / "x")])


def test_a_file_with_ema_alone_is_a_student_unless_nvidia_has_published_it(network, tmp_path, converted):
    for name, is_student in (("network-snapshot-1.2-000123.pkl", True), ("edm-cifar10-32x32-cond-vp.pkl", False)):
        (tmp_path / name).write_bytes(edm_files.dumps({"ema": network}))
        bundle = open_source(str(tmp_path / name))
        assert bool(bundle.about) == is_student
    convert.main([str(tmp_path / "network-snapshot-1.2-000123.pkl"), "--out", str(tmp_path / "out")])
    about = json.loads((tmp_path / "out/sid_jax.json").read_text())
    assert about["config"] == {"family": "edm", "teacher": "network-snapshot-1.2-000123.pkl", "resolution": 8}
    assert about["step"] == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"class_name": "UNet"}, r"config\.json: class_name is 'UNet'"),
        ({"class_name": 3}, r"config\.json: class_name is 3"),
        ({"init_kwargs": [1]}, r"config\.json: init_kwargs is \[1\]; a JSON object"),
        ({"licence": 1}, r"config\.json: licence is 1"),
        ({"init_kwargs": {**KWARGS, "img_resolution": "8"}}, r"config\.json: .*img_resolution"),
    ],
)
def test_damaged_configurations_are_one_line(converted, tmp_path, fields, message):
    config = json.loads((converted / "config.json").read_text()) | fields
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        open_teacher(open_source(str(tmp_path)))


def test_damaged_folders_are_one_line(converted, tmp_path):
    (tmp_path / "model.safetensors").write_bytes((converted / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json: not valid JSON"):
        open_source(str(tmp_path))
    (tmp_path / "config.json").write_bytes((converted / "config.json").read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    tensors.pop("model.map_layer0.bias")
    save_file(tensors, tmp_path / "model.safetensors")
    teacher = open_teacher(open_source(str(tmp_path)))
    with pytest.raises(UserError, match=r"model\.map_layer0\.bias \[\d+\] is missing"):
        teacher.load("denoiser")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors: no such file"):
        teacher.load("denoiser")


def test_a_published_student_is_sampled_as_pytorch_does(network, tmp_path):
    """Through the whole command, with given noise."""
    (tmp_path / "student.pkl").write_bytes(edm_files.dumps({"ema": network}))
    z = np.random.default_rng(0).normal(size=(5, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "z.npy", z)
    sample.main([
        f"--model={tmp_path / 'student.pkl'}", "--classes=0-4", f"--noise={tmp_path / 'z.npy'}",
        f"--npz={tmp_path / 'images.npz'}",
    ])  # fmt: skip
    with torch.no_grad():
        expected = network(2.5 * torch.from_numpy(z), torch.full([5], 2.5), torch.eye(5))
    expected = (expected * 127.5 + 128).clip(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    found = np.load(tmp_path / "images.npz")["arr_0"]
    assert found.std() > 10 and np.abs(found.astype(int) - expected).max() <= 1
    assert (found == expected).mean() > 0.99
