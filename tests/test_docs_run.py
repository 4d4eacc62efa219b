"""The commands and snippets of README.md and docs/ run as they stand, on small models of the names that they use."""

import importlib
import shutil

import doc_pages
import numpy as np
import pytest
from doc_pages import ROOT, RUN
from PIL import Image

from sid_jax import export, train

pytestmark = pytest.mark.slow

CONFIG = """
import sys

sys.path.insert(0, {configs!r})
namespace = {{"__name__": "longer"}}
exec(compile(open({file!r}).read(), {file!r}, "exec"), namespace)


def get_config():
    c = namespace["get_config"]()
    if c.get("model"):
        return c
    c.batch, c.images, c.sample_images, c.log_every = 4, 8, 2, 1
    c.evaluate.samples, c.evaluate.teacher_steps = 100, 2
    if "sd" in {stem!r}:
        c.teacher, c.resolution = {pipeline!r}, 16
    return c
"""
"""Of a config that takes another one's settings, and is shorter."""

EDM = {
    "img_resolution": 32, "img_channels": 3, "model_type": "SongUNet", "model_channels": 8, "channel_mult": [1],
    "num_blocks": 1, "attn_resolutions": [], "augment_dim": 9, "dropout": 0.13,
}  # fmt: skip
SHELL = [block for block in doc_pages.blocks() if block.name in RUN and not block.language]
PYTHON = [block for block in doc_pages.blocks() if block.name in RUN and block.language == "python"]


def configs(folder, pipeline):
    """Short configs of the names that the real ones have."""
    folder.mkdir()
    for file in (ROOT / "configs").glob("*.py"):
        names = {"configs": str(file.parent), "file": str(file), "stem": file.stem, "pipeline": str(pipeline)}
        (folder / file.name).write_text(CONFIG.format(**names))


def pickled(file, labels):
    """A small teacher of EDM as NVIDIA's code writes it."""
    import edm_files
    import torch
    import torch_edm

    settings = {**EDM, "label_dim": labels}
    torch.manual_seed(0)
    network = torch_edm.EDMPrecond(**settings).eval()
    network._init_kwargs = settings
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(edm_files.dumps(edm_files.contents(network)))


def pictures(folder, names):
    """Images with captions."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 40, 3), 9 * number, np.uint8)).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text("a cat")


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory, pipelines):
    """A folder with files and folders of the names that the pages use; not to be changed."""
    folder = tmp_path_factory.mktemp("docs")
    configs(folder / "configs", pipelines["sd"])
    shutil.copytree(pipelines["sd"], folder / "FOLDER_OR_HUB_ID")
    (folder / "prompts.txt").write_text("a cat\na dog\n")
    for name, labels in (("uncond", 0), ("cond", 10)):
        pickled(folder / f"edm-cifar10-32x32-{name}-vp.pkl", labels)
    pickled(folder / "UT-Austin-PML/SiD/PATH/network-snapshot-FILE.pkl", 0)
    pictures(folder / "DATA", "abcdefgh")
    pictures(folder / "imagenet/train", ["n01/a", "n01/b", "n02/c"])
    pictures(folder / "ffhq/images1024x1024", ["00000", "00001"])
    np.save(folder / "z.npy", np.random.default_rng(0).normal(size=(10, 32, 32, 3)).astype(np.float32))
    from test_dataset import binary

    binary(folder / "cifar-10-binary.tar.gz")
    return folder


@pytest.fixture(scope="session")
def runs(stand_ins, tmp_path_factory):
    """Folders of runs by the name of the config, made when they are first asked for."""
    made = {}

    def run(name, *flags):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("runs") / name
            train.main([f"--config={stand_ins / 'configs' / name}.py", f"--workdir={made[name]}", *flags])
        return made[name]

    return run


@pytest.fixture
def place(stand_ins, runs, tmp_path, monkeypatch):
    """A function that makes a folder with what a text names the current one."""

    def copied(source, name):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)

    def make(block):
        for name in (*(path.name for path in stand_ins.iterdir()), "UT-Austin-PML", "imagenet", "ffhq"):
            if name in block.text and not (tmp_path / name).exists():
                copied(stand_ins / name, name)
        if "digits_1step" in block.text:  # before that of the package, by its name alone
            copied(stand_ins / "configs/digits_1step.py", "digits_1step")
        prompts = f"--config.prompts={stand_ins / 'prompts.txt'}"
        cond = f"--config.teacher={stand_ins / 'edm-cifar10-32x32-cond-vp.pkl'}"
        if "--run runs/digits_1step" in block.text:
            copied(runs("digits_1step"), "runs/digits_1step")
        if "runs/NAME" in block.text:
            edm = block.page == "docs/edm.md"
            copied(runs("edm_cifar10_cond_sid", cond) if edm else runs("sd15_1step", prompts), "runs/NAME")
        if "--model student" in block.text:
            export.main([f"--run={runs('edm_cifar10_cond_sid', cond)}", f"--out={tmp_path / 'student'}"])
        monkeypatch.chdir(tmp_path)

    return make


SHORTER = {"--n 5000": "--n 50", '"images": 6_400': '"images": 256', "samples=500": "samples=100"}
"""Numbers that take long, and what the tests have in their places."""


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.name)
def test_commands(block, place):
    place(block)
    count = 0
    for words in doc_pages.commands_of(shorter(block.text)):
        if words[0] == "sid-jax":
            words = ["python", "-m", f"sid_jax.{words[1]}", *words[2:]]
        if words[:2] == ["python", "-m"] and words[2].startswith("sid_jax."):
            assert importlib.import_module(words[2]).main(words[3:]) in (None, 0)
            count += 1
        else:
            assert words[0] == "pip" or words[:3] == ["python", "-m", "pytest"], words
    assert count


def test_snippets_of_python(place, tmp_path, capsys):
    place(PYTHON[0])
    names = {}
    for block in PYTHON:
        exec(compile(block.text, block.name, "exec"), names)
    assert names["images"].shape == names["beside"].shape == (8, 32, 32, 3)
    assert names["student"].step == 2 and names["short"].config.guidance.kappa4 == 1.2
    assert (names["again"].images("a handwritten seven") == names["student"].images("a handwritten seven")).all()
    assert {"seven.png", "side_by_side.png", "exported", "runs"} <= {file.name for file in tmp_path.iterdir()}
    assert "guidance is for teachers: a student is sampled without guidance" in capsys.readouterr().out


def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    """In an empty folder, in few updates; it shows as many pictures as the one that is kept."""
    import nbclient
    import nbformat

    notebook = nbformat.read(ROOT / "docs/digits.ipynb", as_version=4)
    before = [picture_count(cell) for cell in notebook.cells]
    for cell in notebook.cells:
        cell.source = shorter(cell.source)
    assert all(short in str(notebook.cells) for short in ('"images": 256', "samples=100"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = nbclient.execute(notebook, cwd=str(tmp_path), timeout=3600)
    assert [picture_count(cell) for cell in done.cells] == before


def shorter(text):
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    return text


def picture_count(cell):
    return sum("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
