"""The README.md of a folder with a network of EDM's: what it is, its licence, and how the published code runs it."""

from collections.abc import Mapping
from typing import Any

from sid_jax.families.card import code
from sid_jax.formats.edm_folder import Description
from sid_jax.formats.edm_pickle import NVIDIA_LICENCE
from sid_jax.formats.local_paths import last_name
from sid_jax.formats.model_card import head, licence_named
from sid_jax.sid import FewStep
from sid_jax.teachers.teacher import Export

CARD = """\
{head}
# {title}

{made}

## Licence

{licence}

## Use it in PyTorch

Run this where the code of https://github.com/NVlabs/edm is, with the path of this folder in place of the dot:

```python
import json

import torch
from safetensors.torch import load_file
from training import networks

folder = "."
with open(f"{{folder}}/config.json") as file:
    config = json.load(file)
net = getattr(networks, config["class_name"])(**config["init_kwargs"])
net.load_state_dict(load_file(f"{{folder}}/model.safetensors"), strict=True)
net.eval()

{run}
```

`model.safetensors` has the names and shapes of the published code's `state_dict()`, buffers included, in float32; there
is no pickle. sid_jax opens the folder as it is: `python -m sid_jax.sample --model FOLDER {ask}--out pictures`.
"""

_ONE = """\
sigma = {sigma:g}
z = torch.randn({shape})
{labels}with torch.no_grad():
    images = net(sigma * z, torch.full([len(z)], sigma){given})  # in [-1, 1], NCHW"""

_SEVERAL = """\
shape = ({shape})
{once}{labels}images = torch.zeros(shape)
with torch.no_grad():
    for k, sigma in enumerate({sigmas}):
{fresh}        x = {x}
        images = net(x, torch.full([len(x)], sigma){given})  # in [-1, 1], NCHW{again}"""

_NON_COMMERCIAL = """\
The weights of NVIDIA's EDM are under CC BY-NC-SA 4.0 (https://creativecommons.org/licenses/by-nc-sa/4.0/): attribution,
non-commercial use, and the same licence for what is made of them. {passes}"""
_OTHER = "The weights that it was made of are under this licence: {licence}. {passes}"
_UNKNOWN = "Under which licence the weights are that it was made of is not said in their files. {passes}"
_PASSES = "This network was distilled from such weights, so their licence passes to it."
_ITSELF = "This folder has such weights, in another form: their licence stays."


def card_of_student(student: Export, description: Description) -> str:
    """What a student is, how it was made, and how PyTorch samples it: lines that run as they are in the folder."""
    settings, steps = student.settings, student.sampler.num_steps
    teacher = str(settings["teacher"])
    known = "/" in teacher or teacher.startswith("bundled:") or teacher.endswith(".pkl")
    if known:
        title, source = last_name(teacher).removesuffix(".pkl").removeprefix("bundled:"), code(teacher)
    else:  # a folder's name says nothing
        title, source = "EDM", f"a network of EDM's in a folder named {code(teacher)}"
    gan = " with a GAN term, [SiDA](https://arxiv.org/abs/2410.14919)" if _has_gan(settings) else ""
    begun = f", begun as the student {code(str(settings['student']))}" if settings.get("student") else ""
    made = (
        f"Made with sid_jax ([Score identity Distillation](https://arxiv.org/abs/2404.04057){gan}) from "
        f"{source}{begun}: {student.step} updates, {student.step * settings['batch']} images. It makes an image of "
        f"{_side(description)} px in {steps} step{'s' * (steps > 1)}, from noise of standard deviation "
        f"{description.sigma_init:g}, without guidance."
    )
    run = _one(description) if _is_plain(student.sampler) else _several(student.sampler, description)
    return _card(
        f"{_plain(title)}, distilled into {steps} step{'s' * (steps > 1)}", made, run, description, _PASSES, teacher
    )


def card_of_network(source: str, description: Description) -> str:
    """What a folder is that a pickle was converted to, and how PyTorch calls the network."""
    name = last_name(source)
    made = (
        f"The network `ema` of {code(name)}, converted by sid_jax: its tensors as they are there, and in `config.json` "
        "what it was made with. Its output is the denoised image D(x; sigma)."
    )
    return _card(_plain(name.removesuffix(".pkl")), made, _one(description), description, _ITSELF)


def _card(title: str, made: str, run: str, description: Description, passes: str, teacher: str = "") -> str:
    licence = description.licence
    text = (_NON_COMMERCIAL if licence == NVIDIA_LICENCE else _OTHER) if licence else _UNKNOWN
    count = description.init_kwargs.get("label_dim", 0)
    return CARD.format(
        head=head(
            licence=licence_named(licence),
            source=teacher,
            pipeline_tag="unconditional-image-generation",  # of the hub's tasks the nearest for labels, too
            library_name="sid_jax",
            tags=("edm", "image-generation", *(["distillation"] if teacher else []), "sid_jax"),
        ),
        title=title,
        made=made,
        licence=text.format(licence=_plain(licence), passes=passes),
        run=run,
        ask=f"--classes 0-{count - 1} " if count else "--n 8 ",
    )


def _one(description: Description) -> str:
    return _ONE.format(sigma=description.sigma_init, **_labels(description))


def _several(sampler: FewStep, description: Description) -> str:
    fresh, draw = sampler.noise == "fresh", "z = torch.randn(shape)\n"
    first = "z if k == 0 else images + sigma * z" if sampler.first == "unit" else "images + sigma * z"
    return _SEVERAL.format(
        sigmas=[float(t) for t in sampler.times],
        x=first,
        once="" if fresh else draw,
        fresh=f"        {draw}" if fresh else "",
        again="\n        z = (x - images) / sigma" if sampler.noise == "ddim" else "",
        **_labels(description),
    )


def _labels(description: Description) -> dict[str, Any]:
    """Lines for eight images, each of another class."""
    kwargs = description.init_kwargs
    shape = f"8, {kwargs['img_channels']}, {kwargs['img_resolution']}, {kwargs['img_resolution']}"
    count = kwargs.get("label_dim", 0)
    if not count:
        return {"shape": shape, "labels": "", "given": ""}
    return {"shape": shape, "labels": f"labels = torch.eye({count})[torch.arange(8) % {count}]\n", "given": ", labels"}


def _is_plain(sampler: FewStep) -> bool:
    return sampler.num_steps == 1 and sampler.first == "scaled"


def _has_gan(settings: Mapping[str, Any]) -> bool:
    gan = settings.get("gan")
    return isinstance(gan, Mapping) and bool(gan.get("lambda_g"))


def _side(description: Description) -> int:
    side: int = description.init_kwargs["img_resolution"]
    return side


def _plain(text: str) -> str:
    """A text of a user's or of a file's, on one line."""
    return "".join(c if c.isprintable() else "_" for c in text)
