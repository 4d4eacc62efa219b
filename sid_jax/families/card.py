"""The README.md of an exported diffusers folder."""

from collections.abc import Mapping
from typing import Any

from sid_jax.families.pipeline import Pipeline
from sid_jax.families.schedulers import SID_SCHEDULER
from sid_jax.formats.model_card import head, licence_of
from sid_jax.sid import Guidance
from sid_jax.size import size_of
from sid_jax.teachers.teacher import Export

CARD = """\
{head}
# {title}, distilled into {steps} step{s}

Made with sid_jax ([Score identity Distillation](https://arxiv.org/abs/2404.04057)) from {teacher}: {updates} updates,
{images} images, {guidance}.

Run this where this file is, or write the path{id} of its folder in place of the dot:

```python
{sys}import torch
from diffusers import {pipeline}

folder = "."
pipe = {pipeline}.from_pretrained(folder, torch_dtype=torch.float32)
{own}pipe.to("cuda" if torch.cuda.is_available() else "cpu")
size = {{"height": {height}, "width": {width}}}
image = pipe("{prompt}", num_inference_steps={steps}, guidance_scale=1.0, **size).images[0]
```

The student was trained without classifier-free guidance at sampling time: keep `guidance_scale=1.0`. The UNet is stored
in float32, the other networks as the teacher stores them: keep `torch_dtype`, with which they are all of one type.

## Licence

{licence}
"""

_PASSES = "The teacher's weights are under {licence}, which passes to what is made of them, and so to this student."
_UNKNOWN = """\
The teacher's files do not say under which licence its weights are. It passes to what is made of them: find out, and say
it at the top of this file (`license: ...`), before you publish this student."""


OWN_LINES = """
sys.path.append(f"{{folder}}/{own}")
from {own} import SiDScheduler

pipe.scheduler = SiDScheduler.from_pretrained(folder, subfolder="{own}")

"""

_NAMES = {
    "StableDiffusionPipeline": ("Stable Diffusion", "stable-diffusion"),
    "StableDiffusionXLPipeline": ("Stable Diffusion XL", "stable-diffusion-xl"),
}
"""How a kind of pipeline is called, and its tag."""


def card_of(student: Export, pipeline: Pipeline, *, stock: bool) -> str:
    """What the student is, and how PyTorch samples it: lines that run as they are in the folder.

    Args:
      student: what is exported.
      pipeline: its teacher's.
      stock: whether the folder's own scheduler is our sampler; else the one that is shipped beside it is.
    """
    settings, steps = student.settings, student.sampler.num_steps
    kind = pipeline.model_index["_class_name"]
    title, tag = _NAMES[kind]
    source, licence = settings["teacher"], licence_of(pipeline.folder)
    on_hub, bundled = "/" in source, source.startswith("bundled:")
    if on_hub or bundled:
        title, teacher = source.rpartition("/")[2].removeprefix("bundled:"), f"`{source}`"
    else:
        teacher = f"a {title} in a folder named {code(source)}"
    return CARD.format(
        head=head(
            licence=licence,
            source=source,
            pipeline_tag="text-to-image",
            library_name="diffusers",
            tags=(tag, "distillation", "sid_jax"),
        ),
        title=title,
        teacher=teacher,
        steps=steps,
        s="s" * (steps > 1),
        updates=student.step,
        images=student.step * settings["batch"],
        guidance=_guidance(student.guidance, settings),
        pipeline=kind,
        id=" or the hub's id" if stock else "",  # ours is imported from a folder
        licence=_PASSES.format(licence=code(licence.shown)) if licence.shown else _UNKNOWN,
        sys="" if stock else "import sys\n\n",
        own="" if stock else OWN_LINES.format(own=SID_SCHEDULER),
        prompt="a handwritten seven" if source == "bundled:digits" else "a photo of a corgi on a beach",
        **size_of(settings["resolution"])._asdict(),
    )


def _guidance(guidance: Guidance, settings: Mapping[str, Any]) -> str:
    scales = [f"{guidance.kappa1:g}", f"{guidance.kappa2:g}", f"{guidance.kappa3:g}", f"{guidance.kappa4:g}"]
    if set(scales) == {"1"}:
        return "without guidance"
    if len(set(scales)) == 1:
        said = f"kappa1 to kappa4 are {scales[0]}"
    else:
        said = ", ".join(f"kappa{i} is {scale}" for i, scale in enumerate(scales, 1))
    strategy = settings["guidance"]["strategy"]
    # With none of them the scales alone guide, each by its own setting.
    return f"guided in training ({'' if strategy == 'none' else f'strategy `{strategy}`: '}{said})"


def code(name: str) -> str:
    """A name from a file system between backticks, on one line."""
    return "`" + "".join(c if c.isprintable() and c != "`" else "_" for c in name) + "`"
