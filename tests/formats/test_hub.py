"""Names of teachers: folders, hub ids, and what is said where neither is there. No test goes to the network."""

import fnmatch
import os
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors
from pipelines import load_pipeline

from sid_jax.errors import UserError
from sid_jax.formats.hub import locate, patterns

SD15 = [("unet", "diffusion_pytorch_model"), ("text_encoder", "model")]
# Of stable-diffusion-v1-5, and the shards of bigger models.
PUBLISHED = """
model_index.json README.md v1-5-pruned.ckpt v1-5-pruned.safetensors v1-5-pruned-emaonly.safetensors
scheduler/scheduler_config.json tokenizer/vocab.json tokenizer/merges.txt tokenizer/special_tokens_map.json
tokenizer_2/tokenizer_config.json feature_extractor/preprocessor_config.json safety_checker/model.safetensors
unet/config.json unet/diffusion_pytorch_model.bin unet/diffusion_pytorch_model.safetensors
unet/diffusion_pytorch_model.fp16.safetensors unet/diffusion_pytorch_model.non_ema.safetensors
unet/diffusion_pytorch_model-00001-of-00002.safetensors unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors
unet/diffusion_pytorch_model.safetensors.index.json unet/diffusion_pytorch_model.safetensors.index.fp16.json
unet/diffusion_pytorch_model.fp16.safetensors.index.json unet/diffusion_pytorch_model-00001-of-00002.fp16.safetensors
unet/diffusion_flax_model.msgpack vae/config.json vae/diffusion_pytorch_model.safetensors
text_encoder/config.json text_encoder/model.safetensors text_encoder/model.fp16.safetensors
text_encoder/pytorch_model.bin
"""
SMALL = {
    *("model_index.json", "scheduler/scheduler_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt"),
    *("tokenizer/special_tokens_map.json", "tokenizer_2/tokenizer_config.json"),
    *("unet/config.json", "vae/config.json", "text_encoder/config.json"),
}


def chosen(weights, variant):
    return {
        file
        for file in PUBLISHED.split()
        if any(fnmatch.fnmatch(file, pattern) for pattern in patterns(weights, variant))
    }


def test_only_the_files_that_are_needed_are_fetched():
    assert chosen([], "") == SMALL
    assert chosen(SD15, "") == SMALL | {
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "text_encoder/model.safetensors",
    }
    assert chosen(SD15, "fp16") == SMALL | {
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model-00001-of-00002.fp16.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
        "unet/diffusion_pytorch_model.fp16.safetensors.index.json",
        "text_encoder/model.fp16.safetensors",
    }


@pytest.mark.parametrize("source", ["./no/such", "/no/such", "~/no-such", "no-such", "a/b/c", "..", "a//b", "-/..", ""])
def test_what_looks_like_a_folder_is_not_looked_for_on_the_hub(source, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    if Path(source).is_dir():
        source = f"{source}/no-such"
    with pytest.raises(UserError, match="no such folder"):
        locate(source, weights=SD15)


def test_a_single_file_is_said_to_be_one(monkeypatch, tmp_path):
    """Also where a relative path looks like the id of a repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    (tmp_path / "models").mkdir()
    for name, expected in {
        "v1-5.safetensors": "a single file of weights, .*from_single_file",
        "v1-5.ckpt": "a single file of weights, .*from_single_file",
        "notes.txt": "a file, but a folder in the layout of diffusers is needed",
        "model_index.json": f"a file of a pipeline; name its folder, {tmp_path / 'models'}",
    }.items():
        (tmp_path / "models" / name).write_bytes(b"")
        for source in (f"models/{name}", str(tmp_path / "models" / name)):
            with pytest.raises(UserError, match=rf"{name}: {expected}"):
                locate(source, weights=[])


def test_a_folder_one_level_off_is_told_which_one_is_meant(pipelines, tmp_path):
    (tmp_path / "models").symlink_to(pipelines["sd"].parent)
    with pytest.raises(UserError, match=r"the pipeline is in a folder below it, .*models/sd or .*models/sdxl"):
        locate(str(tmp_path / "models"), weights=[])
    with pytest.raises(UserError, match=rf"unet: a part of a pipeline; name the folder above it, {pipelines['sd']}"):
        locate(str(pipelines["sd"] / "unet"), weights=[])


def test_a_folder_of_another_kind_is_said_to_be_one(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.json").touch()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "v1-5.safetensors").touch()
    with pytest.raises(UserError, match="run: the folder of a run, not of a pipeline; export it"):
        locate(str(tmp_path / "run"), weights=[])
    with pytest.raises(UserError, match=r"models/v1-5\.safetensors: a single file of weights"):
        locate(str(tmp_path / "models"), weights=[])


@pytest.mark.parametrize("source", ["a" * 5000, "a" * 300 + "/b", "a/\0", "~nobody-of-this-name/x", "\udcff"])
def test_impossible_names_are_one_line(source, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(UserError) as error:
        locate(source, weights=[])
    assert len(str(error.value)) < 600 and str(error.value).isprintable()


REPOSITORY = """
unet/diffusion_pytorch_model.fp16.safetensors unet/diffusion_pytorch_model.safetensors
vae/diffusion_pytorch_model.safetensors vae/diffusion_pytorch_model.bin
text_encoder/model.fp16.safetensors
"""


@pytest.mark.parametrize(
    ("part", "variant", "expected"),
    [
        ("unet", "", "unet/diffusion_pytorch_model.safetensors"),
        ("unet", "fp16", "unet/diffusion_pytorch_model.fp16.safetensors"),
        ("vae", "fp16", "vae/diffusion_pytorch_model.safetensors"),
        ("text_encoder", "", "text_encoder/model.fp16.safetensors"),
    ],
)
def test_of_a_repository_the_variant_that_a_network_has_is_fetched(monkeypatch, tmp_path, part, variant, expected):
    asked = []

    def snapshot_download(repository, revision, allow_patterns):
        asked.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda *_, **__: REPOSITORY.split())
    stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
    locate("org/name", weights=[(part, stem)], variant=variant)
    assert [file for file in REPOSITORY.split() if any(fnmatch.fnmatch(file, p) for p in asked[-1])] == [expected]
    with pytest.raises(UserError, match="org/name: it has no weights of the variant 'fp61'"):
        locate("org/name", weights=[(part, stem)], variant="fp61")


def test_home_and_relative_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert locate("~/org", weights=[]) == tmp_path / "org"
    assert locate("org/name", weights=[]) == Path("org/name")


def test_hub_id_is_fetched_with_its_revision(monkeypatch, pipelines):
    asked = {}

    def snapshot_download(repository, **options):
        asked.update(options, repository=repository)
        return str(pipelines["sd"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    teacher = load_pipeline("org/name.v1-5", revision="abc", parts=())
    assert teacher.folder == pipelines["sd"]
    assert (asked["repository"], asked["revision"]) == ("org/name.v1-5", "abc")
    assert not [pattern for pattern in asked["allow_patterns"] if "safetensors" in pattern]


def _http(kind):
    return kind("first line\nsecond line", response=SimpleNamespace(headers={}, request=None))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: _http(errors.RepositoryNotFoundError), "no such repository"),
        (lambda: _http(errors.RevisionNotFoundError), "it has no revision 'v2'"),
        (lambda: _http(errors.GatedRepoError), "accept its conditions"),
        (lambda: _http(errors.HfHubHTTPError), "first line"),
        (lambda: errors.OfflineModeIsEnabled("offline"), "cannot be reached"),
        (lambda: errors.LocalEntryNotFoundError("no files\nin the cache"), "cannot be reached"),
        (lambda: errors.HTTPError("connection reset"), "connection reset"),
        (lambda: ConnectionError(), "ConnectionError"),
    ],
)
def test_what_the_hub_says_is_one_line(monkeypatch, make, expected):
    def snapshot_download(*_, **__):
        raise make()

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(UserError) as error:
        locate("org/name", weights=SD15, revision="v2")
    message = str(error.value)
    assert message.startswith("org/name: neither a folder here nor a repository")
    assert expected in message
    assert "\n" not in message


def test_offline_without_a_cache(monkeypatch, tmp_path):
    """What huggingface_hub itself raises where nothing may be fetched and nothing is cached."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="the hub cannot be reached and the files are not in the cache"):
        locate("org/name", weights=SD15)
    assert not os.listdir(tmp_path)
