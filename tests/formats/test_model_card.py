"""The head of a card: as the hub's library reads it, and what is taken from a stranger's."""

import pytest
from huggingface_hub import ModelCard

from sid_jax.formats.model_card import Licence, head, licence_named, licence_of

DIFFUSERS = {"pipeline_tag": "text-to-image", "library_name": "diffusers", "tags": ["stable-diffusion", "sid_jax"]}


def read(text):
    return ModelCard(text + "\n# Title\n").data.to_dict()


def test_of_a_teacher_on_the_hub_the_head_has_all_fields():
    text = head(licence=Licence("openrail++"), source="org/name", **DIFFUSERS)
    assert read(text) == DIFFUSERS | {
        "license": "openrail++", "base_model": "org/name", "base_model_relation": "finetune",
    }  # fmt: skip


def test_a_file_of_the_hub_is_of_its_repository():
    assert read(head(licence=Licence(), source="org/name/a/b.pkl", **DIFFUSERS))["base_model"] == "org/name"


@pytest.mark.parametrize("source", ["", "teacher", "bundled:digits"])
def test_what_is_not_on_the_hub_is_no_base_model(source):
    assert read(head(licence=Licence(), source=source, **DIFFUSERS)) == DIFFUSERS


@pytest.mark.parametrize(
    ("source", "link", "expected"),
    [
        ("org/name", "LICENSE.md", "https://huggingface.co/org/name/blob/main/LICENSE.md"),
        ("org/name", "https://example.org/x", "https://example.org/x"),
        ("teacher", "LICENSE.md", None),
    ],
)
def test_a_link_to_a_licence_leads_somewhere(source, link, expected):
    found = read(head(licence=Licence("other", "own", link), source=source, **DIFFUSERS))
    assert (found["license"], found["license_name"], found.get("license_link")) == ("other", "own", expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CC BY-NC-SA 4.0", Licence("cc-by-nc-sa-4.0")),
        ("Apache-2.0", Licence("apache-2.0")),
        ("MIT", Licence("mit")),
        ("Ours: ask first!", Licence("other", "ours-ask-first")),
        ("", Licence()),
    ],
)
def test_licences_by_their_usual_names(text, expected):
    assert licence_named(text) == expected


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: creativeml-openrail-m\ntags:\n- a\n---\n# T", Licence("creativeml-openrail-m")),
        ('---\nlicense: "openrail++"\n---\n', Licence("openrail++")),
        ("---\r\nlicense: mit\r\n---\r\n", Licence("mit")),
        (
            "---\nlicense: other\nlicense_name: own\nlicense_link: LICENSE.md\n---\n",
            Licence("other", "own", "LICENSE.md"),
        ),
        ("---\ntags:\n- a\n---\nlicense: mit\n", Licence()),
        ("---\nlicense: mit\n", Licence()),
        ("# Title\nlicense: mit\n", Licence()),
        ("---\nlicense:\n- mit\n---\n", Licence()),
        ("---\nlicense: {a: b}\n---\n", Licence()),
        ("", Licence()),
        ("\ufffe\x00", Licence()),
    ],
)
def test_the_licence_that_a_card_states(tmp_path, card, expected):
    (tmp_path / "README.md").write_bytes(card.encode())
    assert licence_of(tmp_path) == expected


def test_where_no_card_can_be_read_no_licence_is_stated(tmp_path):
    assert licence_of(None) == licence_of(tmp_path) == Licence()
    (tmp_path / "README.md").write_bytes(b"---\nlicense: mit\n---\n\xff")
    assert licence_of(tmp_path) == Licence()
