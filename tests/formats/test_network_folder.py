"""One network in a folder or on the hub: which files are fetched, and which of them are read."""

import fnmatch

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from sid_jax.errors import UserError
from sid_jax.formats.network_folder import locate_network, open_network_weights

LAION = """
README.md config.json merges.txt open_clip_config.json open_clip_model.safetensors open_clip_pytorch_model.bin
preprocessor_config.json special_tokens_map.json tokenizer.json tokenizer_config.json vocab.json
"""
TEXTS = {
    "README.md", "config.json", "merges.txt", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json",
    "vocab.json",
}  # fmt: skip
SHARDS = {"model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"model.safetensors", "pytorch_model.bin"}, {"model.safetensors"}),
        ({"pytorch_model.bin"}, {"pytorch_model.bin"}),
        (SHARDS, SHARDS),
    ],
)
def test_what_is_fetched_of_a_repository(monkeypatch, tmp_path, weights, expected):
    files = {*LAION.split(), *weights}
    asked = []

    def snapshot_download(repository, revision, allow_patterns):
        asked.append({file for file in files if any(fnmatch.fnmatch(file, each) for each in allow_patterns)})
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda *_, **__: sorted(files))
    assert locate_network("laion/CLIP-ViT-g-14-laion2B-s12B-b42K") == tmp_path
    locate_network("laion/CLIP-ViT-g-14-laion2B-s12B-b42K", weights=False)
    assert asked == [TEXTS | expected, TEXTS]


def test_a_repository_without_weights_that_are_read(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("fetched"))
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda *_, **__: LAION.split())
    with pytest.raises(UserError, match=r"org/name/model\.safetensors: no such file .*open_clip_model\.safetensors"):
        locate_network("org/name")


def test_names_that_are_none(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UserError, match=r"model\.safetensors: a file; name the folder of a network"):
        locate_network(str(tmp_path / "model.safetensors"))
    with pytest.raises(UserError, match="no such folder"):
        locate_network(str(tmp_path / "none"))


def test_safetensors_come_before_a_state_dict_of_torch(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    assert dict(open_network_weights(tmp_path).tensors())["a"].tolist() == [1, 1]
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "model.safetensors")
    assert dict(open_network_weights(tmp_path).tensors())["a"].tolist() == [0, 0]
