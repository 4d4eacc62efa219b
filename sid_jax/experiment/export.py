"""Writes a distilled student as a complete diffusers folder, which PyTorch opens."""

from sid_jax.experiment.student import Student
from sid_jax.families.diffusers_export import save_pipeline
from sid_jax.families.schedulers import OWN, scheduler_of

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


def export(student: Student, folder: str, *, overwrite: bool = False) -> None:
    """Writes a student's folder, whole or not at all.

    Raises:
      UserError: the folder can't be written, or holds something else.
    """
    scheduler = scheduler_of(student.sampler)
    about = {
        "config": student.config.to_dict(),
        "step": student.step,
        "teacher_scheduler": student.teacher.scheduler_config,
    }
    save_pipeline(
        folder,
        student.teacher,
        student.params,
        scheduler_config=scheduler.config,
        about=about,
        texts={**scheduler.files, "README.md": _card(student, scheduler.exact)},
        overwrite=overwrite,
    )


def _card(student: Student, stock: bool) -> str:
    config, steps = student.config, student.sampler.num_steps
    return CARD.format(
        teacher=config.teacher,
        steps=steps,
        s="s" * (steps > 1),
        updates=student.step,
        images=student.step * config.batch,
        strategy=config.guidance.strategy,
        pipeline=student.teacher.model_index["_class_name"],
        own="" if stock else OWN_LINES.format(own=OWN),
        prompt="a handwritten seven" if config.teacher == "bundled:digits" else "a photo of a corgi on a beach",
        resolution=config.resolution,
    )
