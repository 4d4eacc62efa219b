"""Writes a distilled student in the form of its teacher."""

from sid_jax.experiment.student import Student
from sid_jax.teachers.teacher import Export


def export(student: Student, folder: str, *, overwrite: bool = False) -> None:
    """Writes a student's folder, whole or not at all.

    Args:
      student: the parameters of its teacher's other networks may be abstract; they are copied from its files.
      folder: where to.
      overwrite: replace a model that `export` did not write.

    Raises:
      UserError: the folder can't be written, or holds something else.
    """
    exported = Export(student.params, student.sampler, student.config.to_dict(), student.step)
    student.teacher.write(folder, exported, overwrite=overwrite)
