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
