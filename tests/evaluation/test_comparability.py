"""What a report says of a measurement beside the published table, and what plan says of the network."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import sid_jax.config
from sid_jax.errors import UserError
from sid_jax.evaluation import planned
from sid_jax.evaluation.clip_networks import described_clip
from sid_jax.evaluation.clip_variants import VARIANTS
from sid_jax.evaluation.comparability import compared
from sid_jax.evaluation.dinov2_features import described_dinov2
from sid_jax.evaluation.planned import feature_networks_memory, with_feature_networks
from sid_jax.evaluation.protocol_report import ProtocolReport, summaries
from sid_jax.evaluation.protocols import PROTOCOLS
from sid_jax.evaluation.published import Measured, Subject
from sid_jax.evaluation.references import Reference
from sid_jax.evaluation.request import Prompts, Request
from sid_jax.metrics.frechet import Statistics
from sid_jax.metrics.moments import Estimate
from sid_jax.planning import targets
from sid_jax.planning.compile import Memory


def request_of(name="coco30k", samples=30_000, count=40_504, about=None, prompts=None):
    protocol = PROTOCOLS[name]
    statistics = Statistics(np.zeros(2), np.eye(2))
    reference = Reference(statistics, count, {"network": "x"} if about is None else about, None, 0, "a" * 64)
    fid = (protocol.measure("fid"),)
    return Request(protocol, fid, samples, (0,), {"fid": reference}, {"fid": "real.npz"}, prompts)


OWN = Prompts(["a"] * 30_000, PROTOCOLS["coco30k"].prompts_sha256, "captions.txt")
MODEL = {"resolution": "512", "sha256": "b" * 64, "steps": 1, "guidance": None, "sampler": "FewStep"}


def test_without_any_difference_there_is_none():
    assert compared(request_of(prompts=OWN), [MODEL], True) == ([], [])


@pytest.mark.parametrize(
    ("changes", "model", "released", "said"),
    [
        ({"samples": 2000}, {}, True, "it is of 2,000 images, and the protocol of 30,000"),
        ({"count": 30_000}, {}, True, "the reference of fid is of 30,000 images, and the protocol's of 40,504"),
        ({"prompts": OWN._replace(sha256="c" * 64)}, {}, True, "another SHA-256"),
        ({"prompts": OWN._replace(lines=["a"] * 10)}, {}, True, "there are 10 prompts, which take turns"),
        ({}, {"resolution": "256"}, True, "the images have 256 px, and the protocol's 512"),
        ({}, {}, False, "Inception has other weights than the released ones"),
    ],
)
def test_each_difference_is_a_line(changes, model, released, said):
    differences, unknown = compared(request_of(**{"prompts": OWN, **changes}), [MODEL | model], released)
    assert len(differences) == 1 and said in differences[0] and not unknown


def test_what_cannot_be_told_is_no_difference():
    differences, unknown = compared(request_of(prompts=OWN, about={}), [MODEL], None)
    assert not differences and len(unknown) == 2 and "EDM" not in unknown[1]


def test_a_protocol_without_a_table_is_never_comparable():
    differences, _ = compared(request_of("coco30k-train"), [MODEL], True)
    assert differences == ["no table has numbers of this protocol"]


def test_the_report_of_a_whole_protocol_has_its_name_and_the_published_rows():
    request = request_of(prompts=OWN)
    found = {0: {"fid": Estimate(8.7, 0.1, 8.5)}}
    measured = [Measured(Subject("student", lambda seed: None, MODEL), found)]
    report = ProtocolReport(request, measured, {"inception": "d" * 64}, compared(request, [MODEL], True))
    said, saved = str(report), report.as_json()
    assert saved["comparable"] and saved["rows"]["student"]["fid"]["value"] == 8.7
    assert "SiD-LSG SD1.5, one step, kappa 1.5: fid 8.71, clip_g14_photo 0.302" in said
    assert "not comparable" not in said and "8.7000" in said and "30,000 images" in said


def test_what_the_table_has_no_column_for_is_said_and_has_no_published_rows():
    request = dataclasses.replace(request_of(prompts=OWN), measures=(PROTOCOLS["coco30k"].measure("pickscore"),))
    comparability = compared(request, [MODEL], None)
    assert comparability.unknown == ["what pickscore may be compared with, as the table of coco30k does not have it"]
    measured = [Measured(Subject("student", lambda seed: None, MODEL), {0: {"pickscore": Estimate(22.0, 0.1, 22.0)}})]
    said = str(ProtocolReport(request, measured, {}, comparability))
    assert "not known:" in said and "published by" not in said


def test_seeds_have_mean_spread_and_minimum():
    found = summaries({seed: {"fid": Estimate(value, 0.1, value - 1)} for seed, value in enumerate((3.0, 1.0, 2.0))})
    assert found["fid"] == pytest.approx(
        {"value": 2.0, "standard_error": 0.1, "unbiased": 1.0, "spread": 1.0, "minimum": 1.0}
    )


def test_plan_counts_the_network_beside_the_step():
    figures = {"bytes_per_chip": {"arguments": 50, "peak": 100, "temporaries": 1}, "chip_bytes": 105, "fits": True}
    assert with_feature_networks(figures, {}) == figures
    small = with_feature_networks(figures, {"inception tf1": Memory(4, 0, 0, 10, 14)})
    assert small["fits"] and small["bytes_per_chip"]["peak"] == 104 and small["feature_networks"]["measuring"] == 64
    assert not with_feature_networks(figures, {"inception tf1": Memory(6, 0, 0, 10, 16)})["fits"]
    two = with_feature_networks(figures, {"a": Memory(2, 0, 0, 30, 32), "b": Memory(3, 0, 0, 80, 83)})
    assert two["feature_networks"] == {"arguments": 5, "each": {"a": 2, "b": 3}, "measuring": 50 + 5 + 80}
    assert two["bytes_per_chip"]["peak"] == 135 and not two["fits"]


def test_plan_counts_each_network_that_the_config_asks_for(monkeypatch, tmp_path):
    """Of which the configurations are enough; Inception, whose compilation takes long, is only asked for."""
    text = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    vision = {**text, "image_size": 28, "patch_size": 14}
    small = {
        "clip": {"model_type": "clip", "projection_dim": 8, "text_config": text, "vision_config": vision},
        "dinov2": {"model_type": "dinov2", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    }
    for name, config_json in small.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config_json))
    config = sid_jax.config.default()
    config.evaluate.protocol, config.evaluate.every, config.resolution = "coco30k", 10, 64
    config.evaluate.clip = str(tmp_path / "clip")
    forms = []
    monkeypatch.setitem(planned._MEMORY, "inception", lambda *of: forms.append(of[1]) or planned._MEMORY["clip"](
        of[0], "clip_g14_photo", *of[2:]
    ))  # fmt: skip
    found = feature_networks_memory(config, targets.parse("cpu:1"))
    assert list(found) == ["inception clean", "clip clip_g14_photo"] and forms == ["clean"]
    images = 64 * 28 * 28 * 3  # as many as a device makes at a time
    words = 49408 * 16 * 4  # what stays is the network without its layers
    clip = found["clip clip_g14_photo"]
    assert words < clip.arguments < words + 100_000 and clip.peak > clip.arguments + images

    config = sid_jax.config.default("edm")
    config.evaluate.protocol, config.evaluate.every = "imagenet64", 10
    config.evaluate.dinov2 = str(tmp_path / "dinov2")
    monkeypatch.setitem(planned._MEMORY, "inception", planned._MEMORY["dinov2"])
    assert list(feature_networks_memory(config, targets.parse("cpu:1"))) == ["inception tf1", "dinov2 bicubic"]
    config.evaluate.protocol = "coco30k"
    with pytest.raises(UserError, match=r"config key evaluate\.dinov2: metric 'fd_dinov2': protocol coco30k has fid"):
        feature_networks_memory(config, targets.parse("cpu:1"))


def test_plan_takes_inceptions_form_for_cpus_where_it_plans_for_one(monkeypatch):
    class Asked(Exception):
        pass

    def abstract_inception(on_cpu):
        raise Asked(on_cpu)

    monkeypatch.setattr(planned, "abstract_inception", abstract_inception)
    config = sid_jax.config.default("edm")
    config.evaluate.protocol, config.evaluate.every = "cifar10", 10
    with pytest.raises(Asked, match="True"):
        feature_networks_memory(config, targets.parse("cpu:1"))


def test_published_networks_are_known_without_their_files():
    sizes = {
        described_clip(VARIANTS["clip_g14_photo"]): 1366.7e6,  # open_clip's table of its models has them in millions
        described_clip(VARIANTS["clip_l14"]): 427.6e6,
        described_clip(VARIANTS["pickscore"]): 986.1e6,
        described_dinov2(""): 304.4e6,
    }
    for component, expected in sizes.items():
        count = sum(leaf.size for leaf in jax.tree.leaves(component.params))
        assert abs(count - expected) < 1e5, component.where


@pytest.mark.slow
def test_inception_takes_a_tenth_of_a_gigabyte_and_less_than_one_at_work():
    config = sid_jax.config.default("edm")
    assert feature_networks_memory(config, targets.parse("cpu:1")) == {}
    config.evaluate.protocol, config.evaluate.every = "cifar10", 10
    memory = feature_networks_memory(config, targets.parse("cpu:1"))["inception tf1"]
    assert 0.09e9 < memory.arguments < 0.11e9 and memory.peak < 1.5e9
