"""The README.md of an exported diffusers folder."""

from sid_jax.families.pipeline import Pipeline
from sid_jax.families.schedulers import SID_SCHEDULER
from sid_jax.teachers.teacher import Export

CARD = """\
# {teacher}, distilled into {steps} step{s}

Made with sid_jax (Score identity Distillation) from `{teacher}`: {updates} updates, {images} images, guidance
strategy `{strategy}`.

```python
from diffusers import {pipeline}

pipe = {pipeline}.from_pretrained("PATH OF THIS FOLDER", safety_checker=None)
{own}size = {{"height": {resolution}, "width": {resolution}}}
image = pipe("{prompt}", num_inference_steps={steps}, guidance_scale=1.0, **size).images[0]
```

The student was trained without classifier-free guidance at sampling time: keep `guidance_scale=1.0`.
"""


OWN_LINES = """
import sys
sys.path.append("PATH OF THIS FOLDER/{own}")
from {own} import SiDScheduler
pipe.scheduler = SiDScheduler.from_pretrained("PATH OF THIS FOLDER", subfolder="{own}")

"""


def card_of(student: Export, pipeline: Pipeline, *, stock: bool) -> str:
    """What the student is, and how PyTorch samples it.

    Args:
      student: what is exported.
      pipeline: its teacher's.
      stock: whether the folder's own scheduler is our sampler; else the one that is shipped beside it is.
    """
    settings, steps = student.settings, student.sampler.num_steps
    return CARD.format(
        teacher=settings["teacher"],
        steps=steps,
        s="s" * (steps > 1),
        updates=student.step,
        images=student.step * settings["batch"],
        strategy=settings["guidance"]["strategy"],
        pipeline=pipeline.model_index["_class_name"],
        own="" if stock else OWN_LINES.format(own=SID_SCHEDULER),
        prompt="a handwritten seven" if settings["teacher"] == "bundled:digits" else "a photo of a corgi on a beach",
        resolution=settings["resolution"],
    )
