"""Opening a teacher: the folders that diffusers writes, the files that are published, and what can be wrong."""

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
from sid_jax.experiment.student import open_model
from sid_jax.families.open import open_source, open_teacher
from sid_jax.families.stable_diffusion import teacher_of
from sid_jax.formats.state_dict import from_params, to_params
from sid_jax.runtime.storage.json_files import read_json
from sid_jax.teachers import build, open_component

UNET = "unet/diffusion_pytorch_model"


def edit(file, **changes):
    """Changes fields of a JSON file; None removes one."""
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in values.items() if value != "removed"}))


def rewrite(file, rename=lambda name: name, change=lambda array: array, target=None):
    """Renames and changes the tensors of a file."""
    tensors = {rename(name): np.ascontiguousarray(change(array)) for name, array in load_file(file).items()}
    file.unlink()
    save_file(tensors, target or file)


def tensors_of(component):
    return dict(from_params(component.module, component.params))


def assert_weights(component, file):
    expected = load_file(file)
    found = tensors_of(component)
    assert {n.removeprefix("text_model.") for n in found} == {n.removeprefix("text_model.") for n in expected}
    for name, array in expected.items():
        ours = found[name if name in found else f"text_model.{name}"]
        assert ours.tobytes() == array.tobytes()


def error_of(folder, **options) -> str:
    """The one line that opening `folder` ends with."""
    with pytest.raises(UserError) as error:
        load_pipeline(folder, **options)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 3000
    return message


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_everything_is_there(pipelines, kind):
    folder = pipelines[kind]
    teacher = load_pipeline(folder)
    assert teacher.folder == folder
    assert teacher.scheduler_config["beta_schedule"] == "scaled_linear"
    assert [tokenizer.model_max_length for tokenizer in teacher.tokenizers] == [77] * len(teacher.text_encoders)
    assert list(teacher.components)[:3] == ["unet", "vae", "text_encoder"]
    assert len(teacher.components) == {"sd": 3, "sdxl": 4}[kind]
    for name, component in teacher.components.items():
        assert component.loaded
        assert component.config_json == json.loads((folder / name / "config.json").read_text())
        (file,) = (folder / name).glob("*.safetensors")
        assert_weights(component, file)


def test_parts_are_read_when_they_are_asked_for(pipelines):
    teacher = open_teacher(open_source(str(pipelines["sd"]))).load("space", dtype=jnp.bfloat16)
    (vae,), (text,) = teacher.space.parts, teacher.conditions.parts
    assert (teacher.denoiser.loaded, vae.loaded, text.loaded) == (False, True, False)
    assert {leaf.dtype for leaf in jax.tree.leaves(vae.params)} == {jnp.dtype(jnp.bfloat16)}
    unet = teacher.denoiser.load(jnp.float16)
    assert {leaf.dtype for leaf in jax.tree.leaves(unet.params)} == {jnp.dtype(jnp.float16)}
    assert jax.tree.structure(unet.params) == jax.tree.structure(teacher.denoiser.params)
    shapes = (jax.tree.map(jnp.shape, params) for params in (unet.params, teacher.denoiser.params))
    assert jax.tree.all(jax.tree.map(lambda a, b: a == b, *shapes))
    with pytest.raises(ValueError, match="text_encoder"):
        teacher.load("text_encoder")


def test_rebuild_changes_what_is_computed_in(pipelines):
    unet = open_component(pipelines["sd"] / "unet", "UNet2DConditionModel").rebuild(dtype=jnp.bfloat16)
    assert unet.module.conv_in.dtype == jnp.bfloat16
    assert unet.module.conv_in.kernel.dtype == jnp.float32


def test_arrays_are_put_where_place_says(pipelines):
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0], memory_kind="unpinned_host")
    load = open_component(pipelines["sd"] / "unet", "UNet2DConditionModel").load
    params = load(place=lambda path, array: jax.device_put(array, sharding)).params
    assert all(leaf.sharding == sharding for leaf in jax.tree.leaves(params))


def test_published_names_are_read(sd):
    """As in SD1.5's files: old attention names, `text_model.` before all names, and `position_ids`."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(name):
        for new_part, old_part in old.items():
            name = name.replace(f"attentions.0.{new_part}", f"attentions.0.{old_part}")
        return name

    before = load_pipeline(sd, parts=("vae", "text_encoders"))
    vae, text = sd / "vae/diffusion_pytorch_model.safetensors", sd / "text_encoder/model.safetensors"
    rewrite(vae, rename)
    assert "decoder.mid_block.attentions.0.proj_attn.weight" in load_file(vae)
    rewrite(text, "text_model.{}".format)
    save_file({**load_file(text), "text_model.embeddings.position_ids": np.arange(77)[None]}, text)
    after = load_pipeline(sd, parts=("vae", "text_encoders"))
    for was, now in ((before.vae, after.vae), (before.text_encoders[0], after.text_encoders[0])):
        assert {n: a.tobytes() for n, a in tensors_of(was).items()} == {
            n: a.tobytes() for n, a in tensors_of(now).items()
        }


def test_variant_is_read_and_upcast(sd):
    files = {name: next((sd / name).glob("*.safetensors")) for name in ("unet", "vae", "text_encoder")}
    for file in files.values():
        stem = file.name.removesuffix(".safetensors")
        rewrite(file, change=lambda a: a.astype(np.float16), target=file.with_name(f"{stem}.fp16.safetensors"))
    teacher = load_pipeline(sd, variant="fp16")
    for name, component in teacher.components.items():
        (file,) = (sd / name).glob("*.fp16.safetensors")
        found = tensors_of(component)
        for tensor, array in load_file(file).items():
            ours = found[tensor if tensor in found else f"text_model.{tensor}"]
            np.testing.assert_array_equal(ours, array.astype(np.float32))
    for variant in ("", "fp16"):  # which is all that the folder has
        again = load_pipeline(sd, variant=variant)
        assert tensors_of(again.unet).keys() == tensors_of(teacher.unet).keys()
    assert f"{sd}: it has no weights of the variant 'fp61'" in error_of(sd, variant="fp61")


def test_variant_of_one_network_alone(sd):
    """Stock's variant="fp16" takes what each network has."""
    rewrite(sd / f"{UNET}.safetensors", lambda n: n, lambda a: a.astype(np.float16), sd / f"{UNET}.fp16.safetensors")
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(sd, variant="fp16", torch_dtype=torch.float32)
    for variant in ("fp16", ""):
        pipeline = load_pipeline(sd, variant=variant)
        for ours, theirs in ((pipeline.unet, pipe.unet), (pipeline.vae, pipe.vae)):
            found = tensors_of(ours)
            for name, tensor in theirs.state_dict().items():
                np.testing.assert_array_equal(found[name], tensor.numpy())


@pytest.mark.parametrize("variant", [None, "bf16"])
@pytest.mark.parametrize("shard", ["10GB", "15KB"])
def test_what_diffusers_saves_is_read(pipelines, tmp_path, variant, shard):
    """One file or shards, with and without a variant, each in the type that the network had."""
    dtype = torch.bfloat16 if variant else torch.float32
    theirs = diffusers.UNet2DConditionModel.from_pretrained(pipelines["sd"] / "unet", torch_dtype=dtype)
    theirs.save_pretrained(tmp_path, max_shard_size=shard, variant=variant)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard == "15KB")
    found = tensors_of(open_component(tmp_path, "UNet2DConditionModel", variant=variant or "").load(dtype=None))
    expected = theirs.state_dict()
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        bits = tensor.view(torch.int16 if variant else torch.int32).numpy()
        np.testing.assert_array_equal(found[name].view(bits.dtype), bits)


def test_missing_tensor_is_named_with_its_file(sd):
    file = sd / f"{UNET}.safetensors"
    rewrite(file, lambda name: name.replace("conv_in.bias", "conv_inn.bias"))
    message = error_of(sd)
    for part in (str(file), "conv_inn.bias [8] is not expected", "conv_in.bias [8] is missing"):
        assert part in message


def test_misshapen_tensor_is_named_with_its_file(sd):
    edit(sd / "text_encoder/config.json", intermediate_size=24)
    message = error_of(sd)
    assert str(sd / "text_encoder/model.safetensors") in message
    assert "mlp.fc1.bias is [32], expected [24]" in message


def test_absurd_sizes_are_refused_before_memory_is_taken(sd):
    edit(sd / "unet/config.json", block_out_channels=[4 * 10**9, 8 * 10**9])
    assert "conv_in.weight is [8, 4, 3, 3], expected [4000000000, 4, 3, 3]" in error_of(sd)


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("unet", {"layers_per_block": 10**9}),
        ("unet", {"layers_per_block": 100, "transformer_layers_per_block": 100}),
        ("vae", {"layers_per_block": 10**12}),
        ("text_encoder", {"num_hidden_layers": 10**18}),
    ],
)
def test_absurd_depths_are_refused(sd, part, changes):
    edit(sd / part / "config.json", **changes)
    message = error_of(sd)
    assert str(sd / part / "config.json") in message
    assert "layers; more than 1000 are not supported" in message


@pytest.mark.parametrize(
    ("file", "changes", "expected"),
    [
        ("model_index.json", {"_class_name": "FluxPipeline"}, "_class_name is 'FluxPipeline'"),
        ("model_index.json", {"_class_name": "removed"}, "_class_name is None"),
        ("model_index.json", {"_class_name": ["x"]}, "_class_name is ['x']"),
        ("model_index.json", {"unet": ["diffusers", "UNetMotionModel"]}, "unet is ['diffusers', 'UNetMotionModel']"),
        ("model_index.json", {"vae": [None, None]}, "vae is [None, None]; a AutoencoderKL is needed"),
        ("model_index.json", {"text_encoder": "CLIPTextModel"}, "text_encoder is 'CLIPTextModel'"),
        ("model_index.json", {"tokenizer": ["transformers", "T5Tokenizer"]}, "a CLIPTokenizer or CLIPTokenizerFast"),
        ("unet/config.json", {"class_embed_type": "timestep"}, "field 'class_embed_type' is 'timestep'"),
        ("unet/config.json", {"cross_attention_dim": 32}, "cross_attention_dim is 32, but the text is 16 wide"),
        ("unet/config.json", {"in_channels": 9}, "in_channels and out_channels are 9 and 4, but latents have 4"),
        ("unet/config.json", {"block_out_channels": "8"}, "field 'block_out_channels' must be of type"),
        ("vae/config.json", {"use_quant_conv": False}, "field 'use_quant_conv' is False"),
        ("text_encoder/config.json", {"hidden_act": "relu"}, "field 'hidden_act' is 'relu'"),
        ("scheduler/scheduler_config.json", {"_class_name": 3}, "_class_name is 3; the name of a scheduler"),
    ],
)
def test_values_that_are_not_supported_are_named(sd, file, changes, expected):
    edit(sd / file, **changes)
    message = error_of(sd, parts=())
    assert str(sd / file) in message
    assert expected in message


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("projection_class_embeddings_input_dim", 40, "is 40; the text gives 36"),
        ("addition_embed_type", None, "addition_embed_type None with 2 text encoders"),
    ],
)
def test_sdxl_networks_must_suit_each_other(sdxl, field, value, expected):
    edit(sdxl / "unet/config.json", **{field: value})
    assert expected in error_of(sdxl, parts=())


FILES = ["model_index.json", *(f"{part}/config.json" for part in ("unet", "vae", "text_encoder"))]


@pytest.mark.parametrize("file", [*FILES, "scheduler/scheduler_config.json"])
@pytest.mark.parametrize("content", [None, b'{"a": 1'])
def test_damaged_json_is_named(sd, file, content):
    (sd / file).unlink()
    if content is not None:
        (sd / file).write_bytes(content)
    message = error_of(sd, parts=())
    assert message.startswith(str(sd / file))
    assert ("no such file" if content is None else "not valid JSON") in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not valid JSON"),
        (b'{"a": \xff}', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "not valid JSON"),
        (b"[1]", "expected a JSON object, found list"),
        (b"null", "expected a JSON object, found NoneType"),
    ],
)
def test_json_that_is_no_object_is_named(tmp_path, content, expected):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"x\.json: {expected}") as error:
        read_json(tmp_path / "x.json")
    assert "\n" not in str(error.value)


def test_json_of_absurd_size_is_not_read(tmp_path):
    with (tmp_path / "x.json").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match=r"x\.json: 1099511627776 bytes is too large"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"tokenizer.json": None}, "no vocab.json and merges.txt, nor tokenizer.json"),
        ({"tokenizer.json": None, "vocab.json": "{}"}, "no vocab.json and merges.txt"),
        ({"tokenizer.json": "{"}, "not the tokenizer of a CLIP text encoder"),
        ({"tokenizer.json": "[]"}, "not the tokenizer of a CLIP text encoder"),
        ({"tokenizer.json": None, "vocab.json": "{", "merges.txt": ""}, "not the tokenizer of a CLIP text encoder"),
    ],
)
def test_tokenizers_are_checked(sd, files, expected):
    for name, content in files.items():
        (sd / "tokenizer" / name).unlink(missing_ok=True)
        if content is not None:
            (sd / "tokenizer" / name).write_text(content)
    message = error_of(sd, parts=())
    assert message.startswith(f"{sd / 'tokenizer'}: ")
    assert expected in message


@pytest.mark.parametrize("length", [0, 1, -1, 2, 2.5, "77", True, [77], float("-inf"), "x" * 5000])
def test_absurd_lengths_of_texts_are_refused(sd, length):
    edit(sd / "tokenizer/tokenizer_config.json", model_max_length=length)
    assert f"{sd / 'tokenizer'}: " in (message := error_of(sd, parts=()))
    assert "model_max_length is" in message and len(message) < 500


@pytest.mark.parametrize("length", [1e30, 10**30, 77.0, None, 10**400])
def test_no_limit_on_the_length_of_texts_is_that_of_the_text_encoder(sd, length):
    edit(sd / "tokenizer/tokenizer_config.json", model_max_length=length)
    assert teacher_of(load_pipeline(sd, parts=())).conditions.read(["a", "b" * 200])[0].shape == (2, 77)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("vocab.json", b"[" * 100_000, "vocab.json: not valid JSON"),
        ("special_tokens_map.json", b"\xff", "special_tokens_map.json: not valid JSON"),
        ("tokenizer_config.json", b"<!DOCTYPE html>", "a page of a website"),
        ("merges.txt", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        ("added_tokens.json", None, "added_tokens.json: is a named pipe"),
        ("chat_template.jinja", None, "chat_template.jinja: not a regular file"),
    ],
)
def test_files_of_tokenizers_are_read_with_care(sd, name, content, expected):
    (sd / "tokenizer" / name).unlink(missing_ok=True)
    if content is None:
        os.mkfifo(sd / "tokenizer" / name)
    else:
        (sd / "tokenizer" / name).write_bytes(content)
    assert expected in error_of(sd, parts=())


@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json", "text_encoder/config.json"])
def test_pointers_of_git_lfs_are_known(sd, file):
    (sd / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 743\n")
    message = error_of(sd, parts=())
    assert message.startswith(str(sd / file)) and "`git lfs pull`" in message


@pytest.mark.parametrize("name", ["unet", "tokenizer", "_class_name"])
def test_endless_names_make_no_endless_line(sd, name):
    edit(sd / "model_index.json", **{name: "x" * 5000 if name == "_class_name" else ["diffusers", "x" * 5000]})
    assert len(error_of(sd, parts=())) < 600


def test_more_parameters_than_any_network_has_are_refused_before_memory_is_taken(sd):
    """A sparse file takes no disk."""
    file, shape = sd / f"{UNET}.safetensors", [10**6, 10**6]
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * 10**12]}}).encode()
    with file.open("wb") as f:
        f.write(len(header).to_bytes(8, "little") + header)
        f.truncate(8 + len(header) + 4 * 10**12)
    assert "1000000000000 parameters; networks of more than" in error_of(sd)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"config": None}, "config is None"),
        ({"config": []}, "config is []"),
        ({"config": "removed"}, "config is None"),
        ({"step": "removed"}, "step is None"),
        ({"step": "3"}, "step is '3'"),
        ({"step": -1}, "step is -1"),
        ({"step": True}, "step is True"),
        ({"teacher_scheduler": 3}, "teacher_scheduler is 3"),
        ({"config": {"family": ["x"]}}, "family is ['x']"),
        ({"config": {"resolution": 10**6}}, "resolution is 1000000"),
        ({"config": {"resolution": 0}}, "resolution is 0"),
        ({"config": {"resolution": "64"}}, "key resolution takes"),
        ({"config": {"no_such": 1}}, "no_such"),
    ],
)
def test_what_is_said_of_a_student_is_checked(sd, changes, expected):
    marker = {"written_by": "sid_jax", "config": {"resolution": 16}, "step": 3} | changes
    (sd / "sid_jax.json").write_text(json.dumps({k: v for k, v in marker.items() if v != "removed"}))
    with pytest.raises(UserError) as error:
        open_model(str(sd))
    message = str(error.value)
    assert message.startswith(f"{sd / 'sid_jax.json'}: ") and expected in message and "\n" not in message


def test_published_tokenizers_are_read(sd):
    """Vocabulary and merges, and a tokenizer_config.json, as transformers 4 wrote them."""
    before = load_pipeline(sd, parts=()).tokenizers[0]
    vocabulary = json.loads((sd / "tokenizer/tokenizer.json").read_text())["model"]["vocab"]
    token = {"__type": "AddedToken", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    config = {
        "add_prefix_space": False,
        "bos_token": {**token, "content": "<|startoftext|>"},
        "do_lower_case": True,
        "eos_token": {**token, "content": "<|endoftext|>"},
        "errors": "replace",
        "model_max_length": 77,
        "name_or_path": "openai/clip-vit-large-patch14",
        "pad_token": "<|endoftext|>",
        "special_tokens_map_file": "./special_tokens_map.json",
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": {**token, "content": "<|endoftext|>"},
    }
    (sd / "tokenizer/tokenizer.json").unlink()
    (sd / "tokenizer/tokenizer_config.json").write_text(json.dumps(config))
    (sd / "tokenizer/vocab.json").write_text(json.dumps(vocabulary))
    (sd / "tokenizer/merges.txt").write_text("#version: 0.2\n")
    teacher = load_pipeline(sd, parts=())
    np.testing.assert_array_equal(
        teacher_of(teacher).conditions.read(["Some cats!", ""])[0],
        before(["Some cats!", ""], padding="max_length").input_ids,
    )


@pytest.mark.parametrize("name", ["unet", "scheduler", "tokenizer"])
def test_missing_subfolder_is_named(sd, name):
    shutil.rmtree(sd / name)
    assert str(sd / name) in error_of(sd, parts=())


def test_networks_of_another_class_are_refused():
    with pytest.raises(UserError, match="networks of class UNet1DModel are not supported"):
        build("UNet1DModel", {})


def test_parameters_of_another_network_do_not_fit(pipelines):
    vae = open_component(pipelines["sd"] / "vae", "AutoencoderKL")
    with pytest.raises(UserError, match=r"and \d+ more"):
        to_params(vae.module, {}, [], where="nothing")
