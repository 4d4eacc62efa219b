"""Scores by CLIP against open_clip's, transformers' and hpsv2's ways to them, on small networks with random weights."""

import re

import jax
import numpy as np
import open_clip
import pytest
import torch
import transformers
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import image_transform
from PIL import Image
from torchvision.transforms import functional as resizing

from sid_jax.errors import UserError
from sid_jax.evaluation import clip_networks
from sid_jax.evaluation.batch import Batch
from sid_jax.evaluation.clip_features import MEAN, STD, ClipScore
from sid_jax.evaluation.clip_variants import VARIANTS
from sid_jax.evaluation.networks import FeatureNetworks
from sid_jax.evaluation.protocols import SCORES, protocol_named
from sid_jax.runtime.devices import mesh as meshes
from sid_jax.runtime.devices.mesh import make_mesh

SIDE, WIDTH, START, END = 28, 16, 49406, 49407
DEPTH = 3  # layers of each tower
PROMPTS = ["A cat.", "", "two small dogs, " * 40]
TEXT = {
    "hidden_act": "gelu", "hidden_size": 16, "intermediate_size": 64, "num_attention_heads": 2,
    "num_hidden_layers": DEPTH,
}  # fmt: skip
VISION = {
    "hidden_act": "gelu", "hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 4, "image_size": SIDE,
    "num_hidden_layers": DEPTH, "patch_size": 14,
}  # fmt: skip
CONFIG = {"model_type": "clip", "projection_dim": WIDTH, "text_config": TEXT, "vision_config": VISION}


@pytest.fixture(scope="module")
def words():
    return SimpleTokenizer()


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    vision = open_clip.CLIPVisionCfg(image_size=SIDE, layers=DEPTH, width=32, head_width=8, patch_size=14)
    text = open_clip.CLIPTextCfg(width=16, heads=2, layers=DEPTH)
    made = open_clip.CLIP(WIDTH, vision, text).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    return made


@pytest.fixture(scope="module")
def folder(network, words, tmp_path_factory):
    """`clip.pt` as hpsv2's files are, `head.pth`, the published vocabulary, and the same network as transformers'."""
    made = tmp_path_factory.mktemp("clip")
    torch.save({"epoch": 3, "name": "x", "state_dict": network.state_dict()}, made / "clip.pt")
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {special.get(word, word): number for word, number in words.encoder.items()}
    transformers.CLIPTokenizer(vocab=vocabulary, merges=list(words.bpe_ranks)).save_pretrained(made)
    widths = {0: (WIDTH, 1024), 2: (1024, 128), 4: (128, 64), 6: (64, 16), 7: (16, 1)}
    torch.save(
        torch.nn.ModuleDict(
            {"layers": torch.nn.ModuleDict({str(name): torch.nn.Linear(*pair) for name, pair in widths.items()})}
        ).state_dict(),
        made / "head.pth",
    )
    return made


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(clip_networks, "H14", CONFIG)


@pytest.fixture
def opened(folder):
    def make(variant, **options):
        return ClipScore(str(folder / "clip.pt"), variant, make_mesh(devices=jax.devices()[:1]), **options)

    return make


def pictures(height, width):
    """Smooth ones, with an edge, and noise."""
    rng = np.random.default_rng(0)
    waves = np.sin(np.arange(height)[:, None, None] / 5 + np.arange(width)[:, None] / 9 + np.arange(3))
    waves = np.where(np.arange(width)[:, None] > width // 3, waves, -waves)
    return np.stack([waves * 100 + 127, rng.uniform(0, 255, waves.shape), waves * 30 + 200]).astype(np.uint8)


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


@torch.no_grad()
def cosines(network, pixels, ids):
    return (unit(network.encode_image(pixels)) * unit(network.encode_text(ids))).sum(-1)


def test_tokens_with_the_prefix(opened, words):
    """GigaGAN's: the three tokens after the start, cut to 77, and an end where the text goes on up to there."""
    score = opened("clip_g14_photo")
    ids = words(PROMPTS)
    prefix = words(["A photo depicts "])[0, 1:4]
    assert prefix.tolist() == [320, 1125, 29340]
    expected = torch.cat([ids[:, :1], prefix.expand(3, 3), ids[:, 1:]], 1)[:, :77]
    expected[expected[:, -1] > 0, -1] = END
    actual = score.tokens(PROMPTS)
    assert actual.shape == (3, 77)
    for row, other in zip(actual.tolist(), expected.tolist(), strict=True):
        assert row[: row.index(END) + 1] == other[: other.index(END) + 1]
    assert actual[2, -1] == END and END not in actual[2, :-1]


def test_gigagans_clip_score(opened, network, words):
    """And with it open_clip's names of parameters; every product of the program is in full float32."""
    score = opened("clip_g14_photo")
    images = pictures(60, 60)
    actual = score(images, PROMPTS)
    preprocess = image_transform(SIDE, is_train=False)
    small = [Image.fromarray(image).resize((256, 256), Image.LANCZOS) for image in images]
    ids = torch.from_numpy(score.tokens(PROMPTS)).long()
    expected = cosines(network, torch.stack([preprocess(image) for image in small]), ids).numpy()
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    np.testing.assert_allclose(score(images[:1], PROMPTS[:1]), actual[:1], atol=1e-6)

    programs = [lowered.as_text() for lowered in score.lower(score.feed(images), PROMPTS)]
    products = re.findall(r"stablehlo\.(?:dot_general|convolution)\b.*", "".join(programs))
    assert len(products) == 1 + 2 * 8 + 2  # patches, a layer of each tower, and the projections
    assert all(product.count("HIGHEST") == 2 and "f32" in product for product in products)


def test_devices_have_two_layers_at_most(opened, monkeypatch):
    """The one that runs, and the one that is sent meanwhile."""
    score = opened("clip_g14_photo")
    place, counts = meshes.place, []

    def counting(tree, shardings):
        placed = place(tree, shardings)
        kernels = [array for array in jax.live_arrays() if array.shape in ((32, 128), (16, 64))]
        counts.append(len(kernels))
        return placed

    monkeypatch.setattr(meshes, "place", counting)
    score(pictures(60, 60), PROMPTS)
    assert max(counts) == 2 and len(counts) == 1 + 2 * DEPTH  # the tokens, and each layer


def test_hpsv2(opened, network):
    """Its longer side to 224 in float, black around it, and 100 * cosine."""
    score = opened("hpsv2")
    images = pictures(40, 90)
    actual = score(images, PROMPTS)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    pixels = resizing.resize(pixels, [round(40 * SIDE / 90), SIDE], resizing.InterpolationMode.BICUBIC)
    free = SIDE - pixels.shape[2]
    pixels = resizing.normalize(resizing.pad(pixels, [0, free // 2, 0, free - free // 2]), MEAN, STD)
    ids = torch.from_numpy(score.tokens(PROMPTS)).long()
    np.testing.assert_allclose(actual, 100 * cosines(network, pixels, ids).numpy(), atol=1e-3)


def test_aesthetic_score(opened, network, folder):
    actual = opened("aesthetic_v2", head=str(folder / "head.pth"))(pictures(30, 30), PROMPTS)
    head = torch.load(folder / "head.pth")
    pixels = torch.stack([image_transform(SIDE, is_train=False)(Image.fromarray(image)) for image in pictures(30, 30)])
    with torch.no_grad():
        x = unit(network.encode_image(pixels))
        for name in (0, 2, 4, 6, 7):
            x = torch.nn.functional.linear(x, head[f"layers.{name}.weight"], head[f"layers.{name}.bias"])
    np.testing.assert_allclose(actual, x[:, 0].numpy(), atol=1e-5)


def test_pickscore(words, folder, tmp_path):
    """A network in transformers' format, its processor, and the scale that it has learnt; the weights are a .bin."""
    torch.manual_seed(0)
    theirs = transformers.CLIPModel(transformers.CLIPConfig(**CONFIG)).eval()
    theirs.config.save_pretrained(tmp_path)
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    for file in folder.glob("token*.json"):
        (tmp_path / file.name).symlink_to(file)
    score = ClipScore(str(tmp_path), "pickscore", make_mesh(devices=jax.devices()[:1]))
    images = pictures(50, 35)
    sizes = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    processor = transformers.CLIPImageProcessorPil(**sizes)
    pixels = processor(list(images), return_tensors="pt").pixel_values
    with torch.no_grad():
        ids = torch.from_numpy(score.tokens(PROMPTS)).long()
        expected = theirs(ids, pixels).logits_per_image.diagonal()
    np.testing.assert_allclose(score(images, PROMPTS), expected.numpy(), rtol=1e-4, atol=1e-4)


def test_resize_of_the_score_in_training():
    """torch's bicubic of bytes that PIL has made by Lanczos."""
    variant = VARIANTS["clip_g14"]
    image = pictures(70, 70)[0]
    changed = variant.on_host(image, SIDE)
    np.testing.assert_array_equal(changed, Image.fromarray(image).resize((256, 256), Image.LANCZOS))
    pixels = changed[None].astype(np.float32)
    actual = variant.on_device(pixels, 224)
    expected = torch.nn.functional.interpolate(torch.from_numpy(pixels).permute(0, 3, 1, 2), (224, 224), mode="bicubic")
    np.testing.assert_allclose(actual, expected.permute(0, 2, 3, 1).numpy(), atol=2e-3)


def test_scores_of_a_protocol_with_prompts(folder, opened):
    """By name, in the loop of all metrics; where each network is can't be said for two of them by one place."""
    coco = protocol_named("coco30k")
    assert [each.name for each in coco.chosen("pickscore,hpsv2.1")] == ["pickscore", "hpsv2.1"]
    assert {each.variant for each in SCORES} == set(VARIANTS)
    with pytest.raises(UserError, match=r"metric 'hpsv2': protocol cifar10 has fid, is, kid, fd_dinov2$"):
        protocol_named("cifar10").chosen("hpsv2")
    mesh, place = make_mesh(devices=jax.devices()[:1]), str(folder / "clip.pt")
    with pytest.raises(UserError, match=r"clip\.pt: one place for the networks of hpsv2, clip_l14"):
        FeatureNetworks(coco.chosen("hpsv2,clip_l14"), {"clip": place}, mesh)
    networks = FeatureNetworks(coco.chosen("hpsv2"), {"clip": place}, mesh)
    assert len(networks.sha256["hpsv2"]) == 64
    (instrument,) = networks.instruments(coco, coco.chosen("hpsv2"), {}, {})
    images = pictures(40, 90)
    found = instrument.look(Batch(0, 2, mesh, host=list(images), size=3), PROMPTS[:2])
    np.testing.assert_allclose(found["score"], opened("hpsv2")(images, PROMPTS)[:2], atol=1e-4)


def test_what_can_not_be_had(tmp_path, folder, monkeypatch):
    mesh = make_mesh(devices=jax.devices()[:1])
    monkeypatch.setenv("SID_JAX_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"^/no/such\.pt: no such file"):
        ClipScore("/no/such.pt", "hpsv2", mesh)
    with pytest.raises(UserError, match=r"linearMSE\.pth: no such file, the head of aesthetic_v2; download http"):
        ClipScore(str(folder / "clip.pt"), "aesthetic_v2", mesh)
    (tmp_path / "config.json").write_text('{"model_type": "clip", "vision_config": {"hidden_act": "silu"}}')
    with pytest.raises(UserError, match=r"config\.json: CLIPVisionConfig: field 'hidden_act' is 'silu'"):
        ClipScore(str(tmp_path), "clip_l14", mesh)


ON_DEVICES = """
import sys
import jax, numpy as np
from sid_jax.evaluation import clip_networks
from sid_jax.evaluation.batch import Batch
from sid_jax.evaluation.clip_features import ClipScore
from sid_jax.runtime.devices import mesh as meshes
clip_networks.H14 = eval(sys.argv[2])
images = np.random.default_rng(0).integers(0, 256, (8, 40, 40, 3), np.uint8)
prompts = [f"picture {i}" for i in range(8)]
found = []
for devices, fsdp in ((1, 1), (4, 1), (4, 2)):
    mesh = meshes.make_mesh(-1, fsdp, jax.devices()[:devices])
    score = ClipScore(sys.argv[1], "clip_g14_photo", mesh)
    found += [score(images, prompts), score(meshes.place(images, meshes.batch_sharding(mesh)), prompts[:5])]
    found += [score(images[:3], prompts[:3])]
    assert [len(each) for each in found[-3:]] == [8, 5, 3]
for each in found:
    np.testing.assert_allclose(each, found[0][: len(each)], atol=1e-6)
"""


@pytest.mark.slow
def test_the_same_on_any_number_of_devices(eight_devices, folder):
    eight_devices(ON_DEVICES, folder / "clip.pt", CONFIG)
