"""Small pipelines with random weights, as PyTorch's diffusers writes them."""

from pathlib import Path

import diffusers
import torch
import transformers
from tokenizers.pre_tokenizers import ByteLevel

_UNET = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
_DOWN, _CROSS_DOWN = "DownBlock2D", "CrossAttnDownBlock2D"
_UP, _CROSS_UP = "UpBlock2D", "CrossAttnUpBlock2D"


def _tokenizer(**options) -> transformers.CLIPTokenizer:
    """Letters for words, as CLIP's vocabulary begins and ends."""
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: i for i, word in enumerate(words)}
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77, **options)


def _text_encoder(kind: str, tokenizer, width: int):
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=12,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return getattr(transformers, kind)(config).eval()


def _vae():
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        sample_size=16,
    )


def _scheduler():
    return diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def _sd() -> diffusers.StableDiffusionPipeline:
    tokenizer = _tokenizer()
    unet = diffusers.UNet2DConditionModel(
        **_UNET, down_block_types=(_CROSS_DOWN, _DOWN), up_block_types=(_UP, _CROSS_UP), cross_attention_dim=16
    )
    return diffusers.StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=_text_encoder("CLIPTextModel", tokenizer, 16),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl() -> diffusers.StableDiffusionXLPipeline:
    tokenizer, tokenizer_2 = _tokenizer(), _tokenizer(pad_token="!")
    unet = diffusers.UNet2DConditionModel(
        **_UNET | {"block_out_channels": (8,)},  # one level: half as much to trace and to compile
        down_block_types=(_CROSS_DOWN,),
        up_block_types=(_CROSS_UP,),
        cross_attention_dim=16 + 8,
        transformer_layers_per_block=(1,),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=12 + 6 * 4,
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=_text_encoder("CLIPTextModel", tokenizer, 16),
        text_encoder_2=_text_encoder("CLIPTextModelWithProjection", tokenizer_2, 8),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=unet,
        scheduler=_scheduler(),
    )


def save(folder: Path) -> dict[str, Path]:
    """Writes a pipeline of each kind into `folder`; their folders by kind."""
    for name, make in (("sd", _sd), ("sdxl", _sdxl)):
        torch.manual_seed(0)
        make().save_pretrained(folder / name)
    return {name: folder / name for name in ("sd", "sdxl")}
