"""The loop of every measurement: batches of images, the networks that look at them, and what adds up."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sid_jax.errors import UserError
from sid_jax.evaluation.batch import Batch, Change
from sid_jax.evaluation.saved import SavedMeasurement
from sid_jax.evaluation.sources import Source, Timed, ahead
from sid_jax.evaluation.statistics import Features, Statistic, arrays_of, restore_all
from sid_jax.metrics.moments import Estimate
from sid_jax.runtime.devices import processes
from sid_jax.runtime.run.progress import following


@dataclass(frozen=True)
class Instrument:
    """A network that looks at images, and what adds up what it sees.

    Attributes:
      look: images and what each is of -> features `[B, ...]`, on the host of every process; all of them call it.
      statistics: of those features.
      change: what is done to an image before, on the host; None: nothing.
    """

    look: Callable[[Batch, Sequence[Any] | None], Features]
    statistics: tuple[Statistic, ...]
    change: Change | None = None


def measure_all(
    source: Source,
    instruments: Sequence[Instrument],
    saved: SavedMeasurement | None = None,
    watching: Sequence[Callable[[Batch], None]] = (),
    name: str = "measuring",
) -> dict[str, Estimate]:
    """The values of all images of a source, which are in memory as long as their batch is looked at.

    Of several processes all call this together. The first one adds up, in float64, and all are given the values.

    Args:
      source: of images.
      instruments: what measures them.
      saved: what an interrupted measurement left, and where this one leaves what it has; of the first process.
      watching: are called with each batch before it is measured, such as what writes images to files.
      name: what is done, for the progress; empty: none is shown.

    Raises:
      UserError: there are too few images for a metric, or one can't be measured.
    """
    statistics = _statistics_of(instruments)
    names = [name for each in statistics for name in each.names]
    if (finished := _finished(saved, names)) is not None:
        return finished
    add_up(source, instruments, saved, watching, name)
    found: dict[str, Estimate] = {}
    if processes.is_first():
        found = {name: value for each in statistics for name, value in each.values().items()}
        if saved is not None:
            saved.finish(found)
    return _for_all(found, names)


def add_up(
    source: Source,
    instruments: Sequence[Instrument],
    saved: SavedMeasurement | None = None,
    watching: Sequence[Callable[[Batch], None]] = (),
    name: str = "measuring",
) -> None:
    """What `measure_all` does before there are values: the statistics of the instruments have all images in the end."""
    statistics = _statistics_of(instruments)
    for each in statistics:
        if source.count < each.least:
            what = each.names[0] if each.names else "statistics"
            raise UserError(f"{source.count} images are too few for {what}: at least {each.least} are needed")
    start = int(processes.from_first([_resume(saved, statistics)])[0])
    batches = source.batches(start) if isinstance(source, Timed) else ahead(source.batches(start))
    if name:
        batches = following(batches, source.count, name, size=_count_of, done=start)
    for batch in batches:
        batch.check()
        for watch in watching:
            watch(batch)
        _look(batch, instruments, source.asked)
        if saved is not None and processes.is_first() and saved.due():
            saved.save(batch.start + batch.count, arrays_of(statistics))


def _statistics_of(instruments: Sequence[Instrument]) -> list[Statistic]:
    return [statistic for instrument in instruments for statistic in instrument.statistics]


def _for_all(found: Mapping[str, Estimate], names: Sequence[str]) -> dict[str, Estimate]:
    """The values of the first process, on every one; all of them call this together."""
    numbers = np.array([found[name] for name in names] if found else [[0.0] * 3] * len(names))
    return {name: Estimate(*row) for name, row in zip(names, processes.from_first(numbers).tolist(), strict=True)}


def _finished(saved: SavedMeasurement | None, names: Sequence[str]) -> dict[str, Estimate] | None:
    """The values of a measurement that was finished before; None: it was not."""
    found = saved.values() if saved is not None and processes.is_first() else None
    if found is not None and list(found) != list(names):
        found = None
    if saved is not None and found is not None:
        saved.drop_state()  # of one that was killed as it ended
    return _for_all(found or {}, names) if processes.from_first([found is not None])[0] else None


def _look(batch: Batch, instruments: Sequence[Instrument], asked: Sequence[Any] | None) -> None:
    changed: dict[Change | None, Batch] = {None: batch}
    if asked is not None:  # filled up as the images are
        asked = [asked[min(row, len(asked) - 1)] for row in range(batch.start, batch.start + batch.size)]
    for instrument in instruments:
        if instrument.change is not None and instrument.change not in changed:
            changed[instrument.change] = batch.changed(instrument.change)
        features = instrument.look(changed[instrument.change], asked)
        if processes.is_first():
            own = {name: values[: batch.count] for name, values in features.items()}
            for statistic in instrument.statistics:
                statistic.add(own, batch.rows)


def _resume(saved: SavedMeasurement | None, statistics: Sequence[Statistic]) -> int:
    """The row to begin with: of the first process that after what was saved, if anything was."""
    state = saved.state() if saved is not None and processes.is_first() else None
    if saved is None or state is None:
        return 0
    rows, arrays = state
    try:
        restore_all(statistics, arrays)
    except (ValueError, KeyError) as error:
        raise saved.damaged(error) from error
    return rows


def _count_of(batch: Batch) -> int:
    return batch.count


def values_of(found: Mapping[str, Estimate]) -> dict[str, float]:
    """The values alone."""
    return {name: estimate.value for name, estimate in found.items()}
