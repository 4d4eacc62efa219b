"""Which of several files of weights is read: always the one that the stock library reads."""

import itertools
import logging
import shutil

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import save_file

from sid_jax.errors import UserError
from sid_jax.formats.safetensors_files import find_weights, open_weights
from sid_jax.formats.weight_names import STEMS, choose, has_variant, variants

UNET, TEXT = STEMS["diffusers"], STEMS["transformers"]


@pytest.fixture(scope="module")
def networks():
    """Each library's network, and what it is called."""
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 8), layers_per_block=1, attention_head_dim=2, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8,
    )  # fmt: skip
    text = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, vocab_size=2000,
                                    num_attention_heads=2)
    )  # fmt: skip
    return {UNET: unet, TEXT: text}


def save(network, folder, value, shards, variant=None):
    """Saves a network whose parameters all have one value."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(value)
    network.save_pretrained(folder, max_shard_size="30KB" if shards else "1GB", variant=variant)


def read(folder, stem, variant=""):
    """The value of all parameters that are read."""
    (value,) = {float(x) for _, array in open_weights(folder, stem, variant).tensors() for x in array.reshape(-1)[:3]}
    return value


@pytest.mark.parametrize("stem", [UNET, TEXT])
@pytest.mark.parametrize("variant", [None, "fp16"])
def test_of_shards_and_a_single_file_the_one_is_read_that_stock_reads(networks, tmp_path, stem, variant):
    """The files of both lie in one folder, as stock, which removes those of the earlier save, would not leave them."""
    network = networks[stem]
    for number, shards in enumerate((False, True)):
        save(network, tmp_path / "each", number, shards, variant)
        for file in (tmp_path / "each").iterdir():
            file.replace(tmp_path / file.name)
    assert find_weights(tmp_path, stem, variant or "").suffix == (".json" if stem == UNET else ".safetensors")
    theirs = type(network).from_pretrained(tmp_path, variant=variant)
    (expected,) = {p.flatten()[0].item() for p in theirs.parameters()}
    assert read(tmp_path, stem, variant or "") == expected


@pytest.mark.parametrize("stem", [UNET, TEXT])
@pytest.mark.parametrize("shards", [False, True])
def test_the_variant_is_the_networks_own(networks, tmp_path, stem, shards, caplog):
    save(networks[stem], tmp_path / "plain", 1, shards)
    save(networks[stem], tmp_path / "fp16", 2, shards, "fp16")
    for name in ("plain", "fp16"):
        shutil.copytree(tmp_path / name, tmp_path / "both", dirs_exist_ok=True)
    with caplog.at_level(logging.INFO):
        assert (read(tmp_path / "both", stem), read(tmp_path / "both", stem, "fp16")) == (1, 2)
        assert (read(tmp_path / "plain", stem), read(tmp_path / "fp16", stem, "fp16")) == (1, 2)
        assert not caplog.records
        assert read(tmp_path / "plain", stem, "fp16") == 1
        assert read(tmp_path / "fp16", stem) == 2
        assert read(tmp_path / "fp16", stem) == 2
    assert len(caplog.records) == 2
    assert "plain: no weights of the variant 'fp16'" in caplog.text
    assert "fp16: its only weights" in caplog.text


@pytest.mark.parametrize("stem", [UNET, TEXT])
@pytest.mark.parametrize(
    "index", ["{}.safetensors.index.fp16.json", "{}.safetensors.fp16.index.json", "{}.fp16.safetensors.index.json"]
)
def test_all_spellings_of_an_index_are_known(stem, index):
    names = {index.format(stem), f"{stem}.fp16-00001-of-00002.safetensors", f"{stem}-00001-of-00002.fp16.safetensors"}
    assert choose(names, stem, "fp16", "unet") == (index.format(stem), "fp16")
    assert choose(names, stem, "", "unet") == (index.format(stem), "fp16")
    assert variants(names, stem) == ["fp16"]
    assert has_variant(names, "fp16") and not has_variant(names, "fp")


@pytest.mark.parametrize(
    ("files", "variant", "expected"),
    [
        (["model.fp16.safetensors", "model.non_ema.safetensors"], "", r"it has the variants fp16, non_ema: .*variant"),
        (["model.fp16.safetensors"], "bf16", r"model\.bf16\.safetensors: no such file \(it has the variants fp16"),
        (["diffusion_pytorch_model.safetensors"], "", r"model\.safetensors: no such file .* which is no name of"),
        (["model.bin", "pytorch_model.ckpt"], "", "it has model.bin, a pickle, which is never read"),
        (["README.md"], "", "it has no weights"),
    ],
)
def test_what_is_there_instead_is_said(tmp_path, files, variant, expected):
    for name in files:
        save_file({"a": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(UserError, match=expected) as error:
        open_weights(tmp_path, "model", variant)
    assert "variant=" not in str(error.value)  # of which not every command has a flag


def test_the_order_is_told_by_the_name_alone():
    for stem, variant in itertools.product((UNET, TEXT), ("", "fp16")):
        mark = f".{variant}" * bool(variant)
        single, index = f"{stem}{mark}.safetensors", f"{stem}.safetensors.index{mark}.json"
        assert choose({single, index}, stem, variant, "")[0] == (index if stem == UNET else single)
