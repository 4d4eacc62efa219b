"""The tokenizer that is made for a vocabulary."""

import pytest
from transformers import CLIPTokenizer

from sid_jax.digits import prompts as digits
from sid_jax.digits.tokenizer import write_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"), digits.all_prompts(), 16)


def test_each_word_is_one_token(tokenizer):
    for prompt in digits.all_prompts():
        assert len(tokenizer(prompt).input_ids) == 2 + len(prompt.split())


def test_other_text_is_spelt(tokenizer):
    ids = tokenizer("Zebra é!").input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == "zebraé!"
    assert max(ids) < len(tokenizer)


def test_the_empty_prompt_and_the_length(tokenizer):
    ids = tokenizer(["", "seven " * 40], padding="max_length", truncation=True).input_ids
    assert [len(row) for row in ids] == [16, 16]
    assert ids[0] == [tokenizer.bos_token_id] + [tokenizer.eos_token_id] * 15


def test_saved_again_it_is_the_same(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    back = CLIPTokenizer.from_pretrained(tmp_path)
    assert back("a handwritten 7").input_ids == tokenizer("a handwritten 7").input_ids
    assert back.model_max_length == 16
