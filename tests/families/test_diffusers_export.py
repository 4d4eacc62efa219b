"""Exports: PyTorch opens them and has our weights; they appear whole or not at all, and never in another's place."""

import dataclasses
import json
import os
import shutil

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from pipelines import load_pipeline
from safetensors.numpy import load_file, save_file

from sid_jax.errors import UserError
from sid_jax.families.diffusers_export import save_pipeline
from sid_jax.families.pipeline import Pipeline
from sid_jax.formats.marker import is_export
from sid_jax.formats.state_dict import from_params

KINDS = {"sd": diffusers.StableDiffusionPipeline, "sdxl": diffusers.StableDiffusionXLPipeline}


def files_of(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def networks_of(pipeline):
    return {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}


def assert_same_network(found, expected):
    found, expected = found.state_dict(), expected.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_pytorch_opens_it(pipelines, tmp_path, kind):
    """The student's UNet, and all else as the teacher has it."""
    teacher = load_pipeline(pipelines[kind], parts=("unet",))
    student = jax.tree.map(lambda p: p + 1, teacher.unet.params)
    save_pipeline(tmp_path / "student", teacher, student)
    theirs, before = (KINDS[kind].from_pretrained(folder) for folder in (tmp_path / "student", pipelines[kind]))
    assert networks_of(theirs).keys() == networks_of(before).keys()
    for name, network in networks_of(before).items():
        if name == "unet":
            network.load_state_dict({n: tensor + 1 for n, tensor in network.state_dict().items()})
        assert_same_network(networks_of(theirs)[name], network)
    assert theirs.scheduler.config == before.scheduler.config
    assert theirs.tokenizer("A cat.").input_ids == before.tokenizer("A cat.").input_ids


def test_pytorch_makes_pictures_from_it(pipelines, tmp_path):
    save_pipeline(tmp_path / "student", load_pipeline(pipelines["sd"]))
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "student")
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline("a cat", num_inference_steps=1, guidance_scale=1, height=16, width=16, output_type="np").images
    assert images.shape == (1, 16, 16, 3)


def test_it_is_a_teacher_again(pipelines, tmp_path):
    teacher = load_pipeline(pipelines["sd"])
    save_pipeline(tmp_path / "copy", teacher)
    copy = load_pipeline(tmp_path / "copy")
    for name, component in teacher.components.items():
        assert component.config_json == copy.components[name].config_json
        equal = jax.tree.map(lambda a, b: bool((a == b).all()), component.params, copy.components[name].params)
        assert jax.tree.all(equal)
    assert (copy.scheduler_config, copy.model_index) == (teacher.scheduler_config, teacher.model_index)


def test_a_pipeline_that_was_made_here(pipelines, tmp_path):
    """No folder behind it: parameters from memory, tokenizers as transformers writes them."""
    read = load_pipeline(pipelines["sd"])
    unet, vae, text = (dataclasses.replace(component, open_weights=None) for component in read.components.values())
    made = Pipeline(unet, vae, (text,), read.tokenizers, read.scheduler_config, read.model_index)
    save_pipeline(tmp_path / "made", made)
    before, after = map(diffusers.StableDiffusionPipeline.from_pretrained, (pipelines["sd"], tmp_path / "made"))
    for name, network in networks_of(before).items():
        assert_same_network(networks_of(after)[name], network)
    assert after.tokenizer("A cat.").input_ids == before.tokenizer("A cat.").input_ids


def test_unet_is_float32_and_the_rest_as_it_came(sd, tmp_path):
    file = sd / "vae/diffusion_pytorch_model.safetensors"
    save_file({name: array.astype(np.float16) for name, array in load_file(file).items()}, file)
    teacher = load_pipeline(sd, dtype=jnp.bfloat16)
    save_pipeline(tmp_path / "out", teacher, teacher.unet.params)
    written = {name: load_file(next((tmp_path / "out" / name).glob("*.safetensors"))) for name in ("unet", "vae")}
    assert {array.dtype for array in written["unet"].values()} == {np.dtype(np.float32)}
    for name, array in from_params(teacher.unet.module, teacher.unet.params):
        np.testing.assert_array_equal(written["unet"][name], array.astype(np.float32))
    assert {name: array.tobytes() for name, array in written["vae"].items()} == {
        name: array.tobytes() for name, array in load_file(file).items()
    }


def test_large_networks_are_sharded(pipelines, tmp_path):
    teacher = load_pipeline(pipelines["sd"])
    save_pipeline(tmp_path / "out", teacher, teacher.unet.params, shard_bytes=20_000)
    assert len(list((tmp_path / "out" / "unet").glob("diffusion_pytorch_model-*-of-*.safetensors"))) > 1
    before, after = map(diffusers.StableDiffusionPipeline.from_pretrained, (pipelines["sd"], tmp_path / "out"))
    for name, network in networks_of(before).items():
        assert_same_network(networks_of(after)[name], network)


def test_scheduler_and_facts_can_be_given(pipelines, tmp_path):
    scheduler = {"_class_name": "LCMScheduler", "num_train_timesteps": 1000, "steps_offset": 1}
    save_pipeline(
        tmp_path / "out",
        load_pipeline(pipelines["sd"], parts=()),
        scheduler_config=scheduler,
        about={"num_steps": 4},
        texts={"README.md": "é", "code/x.py": "pass"},
    )
    out = tmp_path / "out"
    assert json.loads((out / "sid_jax.json").read_text()) == {"num_steps": 4, "written_by": "sid_jax"}
    assert ((out / "README.md").read_text(encoding="utf-8"), (out / "code/x.py").read_text()) == ("é", "pass")
    assert isinstance(diffusers.StableDiffusionPipeline.from_pretrained(out).scheduler, diffusers.LCMScheduler)


@pytest.mark.parametrize("whole", [True, False])
def test_safety_checker_is_copied_with_its_feature_extractor(sd, tmp_path, whole):
    index = json.loads((sd / "model_index.json").read_text()) | {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "requires_safety_checker": True,
    }
    (sd / "model_index.json").write_text(json.dumps(index))
    for name, file in (("safety_checker", "model.safetensors"), ("feature_extractor", "preprocessor_config.json")):
        (sd / name).mkdir()
        (sd / name / (file if whole else "pytorch_model.bin")).write_bytes(b"{}")
    (sd / "safety_checker" / "pytorch_model.bin").write_bytes(b"a pickle")
    save_pipeline(tmp_path / "out", load_pipeline(sd, parts=()))
    written = json.loads((tmp_path / "out" / "model_index.json").read_text())
    names = ("safety_checker", "feature_extractor", "requires_safety_checker")
    assert [written[n] for n in names] == ([index[n] for n in names] if whole else [[None, None], [None, None], False])
    assert (tmp_path / "out" / "safety_checker" / "model.safetensors").exists() == whole
    assert not list((tmp_path / "out").rglob("*.bin"))


def test_names_in_model_index_lead_nowhere(sd, tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "model.safetensors").write_bytes(b"secret")
    index = json.loads((sd / "model_index.json").read_text()) | {"../secret": ["x", "y"]}
    (sd / "model_index.json").write_text(json.dumps(index))
    save_pipeline(tmp_path / "out" / "here", load_pipeline(sd, parts=()))
    assert not [file for file in (tmp_path / "out").rglob("*") if file.is_file() and file.read_bytes() == b"secret"]
    assert set(os.listdir(tmp_path / "out")) == {"here"}


def test_of_links_out_of_the_teacher_only_what_a_pipeline_has_is_copied(sd, tmp_path, caplog):
    (tmp_path / "secret.json").write_text("{}")
    (sd / "tokenizer" / "secret.json").symlink_to(tmp_path / "secret.json")
    (sd / "tokenizer" / "notes.txt").symlink_to(sd / "model_index.json")
    (sd / "tokenizer" / "own.txt").write_text("a text of the teacher's")
    (sd / "tokenizer" / "too.txt").symlink_to("own.txt")
    save_pipeline(tmp_path / "out", load_pipeline(sd, parts=()))
    copied = set(os.listdir(tmp_path / "out" / "tokenizer"))
    assert {"tokenizer.json", "own.txt", "too.txt"} <= copied and not {"secret.json", "notes.txt"} & copied
    assert "secret.json is a link out of its folder" in caplog.text


def test_a_folder_of_links_is_exported_as_plain_files(sd, tmp_path):
    """As downloads and stores of models have them: every file elsewhere, under another name."""
    expected, store = load_pipeline(sd), tmp_path / "store"
    save_pipeline(tmp_path / "of_files", expected)
    store.mkdir()
    for number, file in enumerate(sorted(file for file in sd.rglob("*") if file.is_file())):
        file.rename(store / f"blob{number}")
        file.symlink_to(store / f"blob{number}")
    of_links = load_pipeline(sd)
    save_pipeline(tmp_path / "of_links", of_links)
    assert files_of(tmp_path / "of_links") == files_of(tmp_path / "of_files")
    assert not [file for file in (tmp_path / "of_links").rglob("*") if file.is_symlink()]
    for before, after in zip(expected.components.values(), of_links.components.values(), strict=True):
        assert before.digest() == after.digest()


class TestTarget:
    """Where an export may go."""

    @pytest.fixture(scope="class")
    def teacher(self, pipelines):
        return load_pipeline(pipelines["sd"], parts=())

    def refuse(self, target, teacher, expected, **options):
        before = set(target.parent.iterdir())
        with pytest.raises(UserError, match=expected):
            save_pipeline(target, teacher, **options)
        assert set(target.parent.iterdir()) == before

    def test_empty_folders_and_earlier_exports_are_replaced(self, teacher, tmp_path):
        target = tmp_path / "new" / "out"
        target.mkdir(parents=True)
        save_pipeline(target, teacher)
        assert is_export(target)
        save_pipeline(target, teacher, about={"run": 2})
        assert json.loads((target / "sid_jax.json").read_text())["run"] == 2
        assert os.listdir(target.parent) == ["out"]

    def test_other_pipelines_are_replaced_only_on_request(self, teacher, sd, tmp_path):
        before = files_of(sd)
        self.refuse(sd, teacher, "another pipeline is there; choose another folder, or overwrite it")
        assert files_of(sd) == before
        save_pipeline(sd, teacher, overwrite=True)
        assert is_export(sd)

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_other_folders_are_never_replaced(self, teacher, tmp_path, overwrite):
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "thesis.tex").touch()
        self.refuse(tmp_path / "thesis", teacher, "not empty, and not a diffusers folder", overwrite=overwrite)

    def test_files_and_links_are_never_replaced(self, teacher, sd, tmp_path):
        (tmp_path / "file").touch()
        self.refuse(tmp_path / "file", teacher, "a file of this name exists", overwrite=True)
        (tmp_path / "link").symlink_to(sd)
        self.refuse(tmp_path / "link", teacher, "a link; name the folder itself", overwrite=True)
        (tmp_path / "nowhere").symlink_to(tmp_path / "nothing")
        self.refuse(tmp_path / "nowhere", teacher, "a link; name the folder itself", overwrite=True)

    def test_below_a_file_nothing_can_be_made(self, teacher, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match="file/out: cannot be written"):
            save_pipeline(tmp_path / "file" / "out", teacher)

    def test_the_teacher_is_never_replaced(self, sd, tmp_path):
        teacher = load_pipeline(sd, parts=())
        self.refuse(sd, teacher, "the teacher .* is there", overwrite=True)
        (tmp_path / "model_index.json").touch()
        self.refuse(tmp_path, teacher, "the teacher .* is there", overwrite=True)

    def test_a_failure_leaves_everything_as_it_was(self, teacher, sd, tmp_path):
        save_pipeline(tmp_path / "out", teacher)
        other = load_pipeline(sd, parts=())
        file = sd / "vae" / "diffusion_pytorch_model.safetensors"
        file.write_bytes(file.read_bytes()[:-1])
        before = files_of(tmp_path)
        with pytest.raises(UserError, match=r"vae/diffusion_pytorch_model\.safetensors: not a whole safetensors file"):
            save_pipeline(tmp_path / "out", other)
        assert files_of(tmp_path) == before

    def test_the_earlier_export_comes_back_where_the_new_one_cannot_take_its_place(
        self, teacher, tmp_path, monkeypatch
    ):
        save_pipeline(tmp_path / "out", teacher)
        before, rename = files_of(tmp_path), os.rename

        def fail_at_the_last_step(source, target):
            if str(source).endswith(".partial"):
                raise OSError("disk gone")
            rename(source, target)

        monkeypatch.setattr(os, "rename", fail_at_the_last_step)
        with pytest.raises(UserError, match=r"out: cannot be written \(disk gone\)"):
            save_pipeline(tmp_path / "out", teacher, about={"run": 2})
        assert files_of(tmp_path) == before

    def test_it_can_be_read_by_those_who_can_read_its_neighbours(self, teacher, tmp_path):
        (tmp_path / "plain").mkdir()
        save_pipeline(tmp_path / "out", teacher)
        assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode

    def test_what_a_killed_export_has_left_is_cleared_up(self, teacher, tmp_path):
        for name in (".out.01234567.partial", ".out.89abcdef.replaced", ".other.01234567.partial"):
            (tmp_path / name).mkdir()
        save_pipeline(tmp_path / "out", teacher)
        names = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("."))
        assert names == [".other.01234567.partial"]
        assert (tmp_path / "out" / "model_index.json").is_file()


def make_repository(out):
    (out / ".git" / "refs" / "heads").mkdir(parents=True)
    (out / ".git" / "HEAD").write_text("ref: refs/heads/main")
    (out / ".git" / "hooks").mkdir()


CHANGES = {
    "notes": (lambda out: (out / "notes.txt").write_text("mine"), "notes.txt in it is"),
    "an edited card": (lambda out: (out / "README.md").write_text("my card"), "README.md in it is"),
    "a repository": (make_repository, r"\.git in it are"),
    "pictures": (lambda out: (out / "pictures").mkdir(), "pictures in it is"),
    "other weights": (lambda out: (out / "unet/model.fp16.safetensors").touch(), "unet/model.fp16.safetensors"),
    "edited weights": (
        lambda out: (out / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"x"), "unet/diffusion_pytorch",
    ),
    "a link": (lambda out: (out / "latest").symlink_to("unet"), "latest in it is"),
    "several": (lambda out: [(out / n).touch() for n in "abcde"], "a, b, c and 2 more in it are"),
}  # fmt: skip


class TestAgain:
    """An export where one is already: nothing of the user's is lost, and nothing stale of the model's stays."""

    @pytest.fixture(scope="class")
    def teacher(self, pipelines):
        return load_pipeline(pipelines["sd"], parts=())

    @pytest.fixture(scope="class")
    def written(self, teacher, tmp_path_factory):
        folder = tmp_path_factory.mktemp("written") / "out"
        save_pipeline(folder, teacher, texts={"README.md": "a card"})
        return folder

    @pytest.fixture
    def out(self, written, tmp_path):
        return shutil.copytree(written, tmp_path / "out")

    @pytest.mark.parametrize("listed", [True, False])
    @pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
    def test_what_export_did_not_write_is_refused(self, teacher, out, change, expected, listed):
        if not listed:  # as exports once were
            (out / "sid_jax_files.json").unlink()
        change(out)
        if not listed and expected.startswith(("README", "unet")):  # such changes can't be seen there
            return
        before = files_of(out.parent)
        with pytest.raises(UserError, match=f"out: {expected}.*--overwrite"):
            save_pipeline(out, teacher)
        assert files_of(out.parent) == before

    def test_what_came_while_it_was_written_is_refused(self, teacher, out, monkeypatch):
        def meanwhile(folder):
            (out / "notes.txt").write_text("mine")

        monkeypatch.setattr("sid_jax.formats.export_folder.write_list", meanwhile)
        with pytest.raises(UserError, match=r"notes\.txt"):
            save_pipeline(out, teacher)
        assert (out / "notes.txt").read_text() == "mine"

    def test_overwrite_replaces_the_model_and_keeps_the_rest(self, teacher, out):
        make_repository(out)
        (out / "notes.txt").write_text("mine")
        (out / "latest").symlink_to("nowhere")
        (out / "README.md").write_text("my card")
        (out / "unet/diffusion_pytorch_model.safetensors.index.json").write_text("{}")  # would be read first
        (out / "vae/diffusion_pytorch_model.bin").write_bytes(b"old")
        before = os.stat(out / "notes.txt")
        save_pipeline(out, teacher, texts={"README.md": "another card"}, overwrite=True)
        assert (out / "README.md").read_text() == "another card"
        assert (out / "notes.txt").read_text() == "mine" and os.stat(out / "notes.txt").st_mtime == before.st_mtime
        assert (out / ".git/HEAD").read_text() == "ref: refs/heads/main"
        assert (out / ".git/refs/heads").is_dir() and (out / ".git/hooks").is_dir()
        assert os.readlink(out / "latest") == "nowhere"
        assert not (out / "unet/diffusion_pytorch_model.safetensors.index.json").exists()
        assert not list(out.rglob("*.bin"))
        assert os.listdir(out.parent) == ["out"]
        with pytest.raises(UserError, match=r"\.git, latest, notes\.txt in it are"):
            save_pipeline(out, teacher)

    def test_where_there_are_no_hard_links_files_are_copied(self, teacher, out, monkeypatch):
        def no_links(*args, **kwargs):
            raise PermissionError(1, "Operation not permitted")

        (out / "notes.txt").write_text("mine")
        monkeypatch.setattr(os, "link", no_links)
        save_pipeline(out, teacher, overwrite=True)
        assert (out / "notes.txt").read_text() == "mine"

    def test_a_folder_in_the_place_of_a_file_is_not_lost(self, teacher, out):
        (out / "README.md").unlink()
        (out / "README.md").mkdir()
        (out / "README.md/mine").write_text("mine")
        with pytest.raises(UserError, match=r"README\.md/mine: the export has something else of this name"):
            save_pipeline(out, teacher, texts={"README.md": "a card"}, overwrite=True)
        assert (out / "README.md/mine").read_text() == "mine"

    def test_what_was_left_when_it_was_killed_between_two_names_is_not_lost(self, teacher, out):
        (out / "notes.txt").write_text("mine")
        os.rename(out, out.with_name(".out.01234567.replaced"))
        with pytest.raises(UserError, match=r"notes\.txt"):
            save_pipeline(out, teacher)
        assert (out / "notes.txt").read_text() == "mine"

    def test_running_its_scheduler_is_no_change(self, teacher, tmp_path):
        texts = {"sid_scheduler/sid_scheduler.py": "pass"}
        save_pipeline(tmp_path / "out", teacher, texts=texts)
        (tmp_path / "out/sid_scheduler/__pycache__").mkdir()
        (tmp_path / "out/sid_scheduler/__pycache__/sid_scheduler.cpython-311.pyc").touch()
        save_pipeline(tmp_path / "out", teacher, texts=texts)

    @pytest.mark.parametrize("name", [".", "..", "../out"])
    def test_the_current_directory_is_never_replaced(self, teacher, out, monkeypatch, name):
        inner = out / "inner" if name == ".." else out
        inner.mkdir(exist_ok=True)
        monkeypatch.chdir(inner)
        with pytest.raises(UserError, match="the current directory is there"):
            save_pipeline(name, teacher, overwrite=True)
        assert os.path.samefile(".", inner) and (out / "model_index.json").is_file()

    def test_a_mounted_disk_is_named_at_once(self, teacher, tmp_path, monkeypatch):
        (tmp_path / "out").mkdir()
        monkeypatch.setattr(type(tmp_path), "is_mount", lambda self: self.name == "out")
        with pytest.raises(UserError, match="a disk is mounted there"):
            save_pipeline(tmp_path / "out", teacher)
