"""Writes a distilled student as a complete diffusers folder, which PyTorch opens."""

import sys
from collections.abc import Sequence

from sid_jax import experiment
from sid_jax.experiment import Student
from sid_jax.runtime import command_line
from sid_jax.teachers import save_pipeline
from sid_jax.teachers.schedulers import OWN, scheduler_of

EPILOG = """\
The folder has the student's UNet (the moving average, float32), the teacher's other networks and tokenizers, and a
scheduler under which StableDiffusionPipeline makes the pictures of sid_jax.sample; its README.md shows how to use it.

example:
  python -m sid_jax.export --run runs/digits_1step --out exported"""

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


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = command_line.Parser("python -m sid_jax.export", __doc__, EPILOG)
    parser.add_argument("--run", metavar="DIR", required=True, help="the folder of a run: its newest checkpoint")
    parser.add_argument("--out", metavar="FOLDER", required=True, help="the folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a pipeline that export did not write")
    arguments = parser.parse_args(argv)
    student = experiment.open_run(arguments.run, parts=(), fetch=("vae", "text_encoders"))
    export(student, arguments.out, overwrite=arguments.overwrite)
    print(f"wrote {arguments.out}; its README.md shows how to open it in PyTorch")


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


if __name__ == "__main__":
    sys.exit(command_line.run(main))
