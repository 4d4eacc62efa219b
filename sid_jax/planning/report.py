"""What a plan says: as a table to read, and as JSON."""

from dataclasses import asdict
from typing import Any

from ml_collections import ConfigDict

from sid_jax.experiment.build import guidance_of
from sid_jax.planning.compile import Compiled
from sid_jax.planning.cost import KERNEL_SHARE
from sid_jax.planning.measured import DROPPED, Run
from sid_jax.planning.program import Program, floor_forwards, forward_flops
from sid_jax.planning.targets import Target

GB = 1e9
_WIDTH = len("  utilisation")
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"))


def measure(config: ConfigDict, target: Target, program: Program, compiled: Compiled) -> dict[str, Any]:
    """The figures of a plan by name. Bytes, operations and seconds are of one chip and one update.

    `flops_ratio` compares what was compiled with the floor. Where the program has loops whose turns only the running
    program knows (the generator's n evaluations), both count each of them once, and n is then 2 in the floor: one
    evaluation in the loop of A, one in the loop of B beside its last, at the price of the mean n in `seconds_estimate`.
    """
    memory, cost, chip = compiled.memory, compiled.cost, target.chip
    figures = {
        "target": target.name,
        "chips": target.count,
        "teacher": config.teacher,
        "origin": program.origin,
        "batch": config.batch,
        "accumulation": config.accumulation,
        "images_per_chip": program.images,
        "guidance": config.guidance.strategy if "guidance" in config else "none",
        "num_steps": config.sid.num_steps,
        "parameters": program.parameters,
        "state_bytes_per_parameter": program.state_bytes / program.parameters,
        "fits": memory.peak <= chip.memory,
        "bytes_per_chip": asdict(memory),
        "chip_bytes": chip.memory,
        "chip_known": chip.known,
        "chip_flops": chip.flops,
        "compile_seconds": compiled.seconds,
    }
    if cost is None:
        return figures
    guidance, dynamic = guidance_of(config), config.sid.num_steps > 1
    forward = forward_flops(program.teacher, config.resolution)
    per_chip = forward * config.batch / target.count
    floor = per_chip * floor_forwards(guidance, *((1, 2) if dynamic else (1, 1)))
    flops = cost.flops + cost.kernel_flops
    mean = (config.sid.num_steps + 1) / 2
    extra = 2 * (mean - 1) - dynamic
    seconds = compiled.run_seconds
    return figures | {
        "forward_flops_per_image": forward,
        "floor_forwards": floor_forwards(guidance, mean, mean),
        "floor_flops": floor,
        "flops": flops,
        "kernel_flops": cost.kernel_flops,
        "flops_ratio": flops / floor,
        "traffic_bytes": cost.bytes,
        "launches": cost.launches if target.platform == "gpu" else None,
        "launch_seconds": cost.launch_seconds,
        "collective_bytes": dict(cost.collectives),
        "compiler_seconds": compiled.xla_seconds,
        "roofline_seconds": cost.seconds,
        "kernel_seconds": cost.kernel_seconds,
        "seconds_estimate": seconds,
        "utilisation": floor / seconds / chip.flops,
        "images_per_second": config.batch / (seconds * (1 + extra * per_chip / floor)),
    }


def table(figures: dict[str, Any]) -> str:
    """The figures as lines of a name and a value each."""
    memory, chip = figures["bytes_per_chip"], figures["chip_bytes"]
    verdict = "yes" if figures["fits"] else "NO"
    rows = [
        ("teacher", f"{figures['teacher']} ({figures['parameters'] / 1e6:.1f} M parameters, by {figures['origin']})"),
        (
            "batch",
            f"{figures['batch']}: {figures['images_per_chip']:g} image(s) a chip at a time, "
            f"accumulation {figures['accumulation']}; {figures['num_steps']} step(s), {figures['guidance']}",
        ),
        ("state", f"{figures['state_bytes_per_parameter']:.2f} bytes a parameter"),
        ("fits", f"{verdict}: {memory['peak'] / GB:.2f} of {chip / GB:.2f} GB a chip"),
    ]
    if networks := figures.get("feature_networks"):
        each = ", ".join(f"{name} {size / GB:.2f} GB" for name, size in networks["each"].items())
        rows.append(("  measuring", f"{networks['measuring'] / GB:.2f} GB; feature networks, which stay: {each}"))
    if memory["temporaries"] is None:
        return _lines([*rows, ("compiled in", f"{figures['compile_seconds']:.0f} s")])
    rows += [
        ("  arguments", f"{memory['arguments'] / GB:.2f} GB"),
        ("  temporaries", f"{memory['temporaries'] / GB:.2f} GB"),
        ("  outputs", f"{memory['outputs'] / GB:.2f} GB, {memory['aliased'] / GB:.2f} of them in place of arguments"),
        (
            "FLOPs",
            f"{_count(figures['flops'])} a chip, {figures['flops_ratio']:.3f} x the floor of "
            f"{_count(figures['floor_flops'])} (one image forward: {_count(figures['forward_flops_per_image'])})",
        ),
        ("  in kernels", f"{_count(figures['kernel_flops'])} of them"),
        ("traffic", f"{figures['traffic_bytes'] / GB:.1f} GB to and from a chip's memory"),
        (
            "collectives",
            ", ".join(f"{kind} {size / GB:.2f} GB" for kind, size in figures["collective_bytes"].items()) or "none",
        ),
    ]
    if launches := figures["launches"]:
        rows.append(("launches", f"{launches:,} kernels, one after the other"))
    if figures["chip_known"]:
        rows += [
            ("time", _time(figures)),
            ("utilisation", f"{100 * figures['utilisation']:.1f} % of the peak, of the floor's FLOPs"),
            ("images", f"{figures['images_per_second']:.1f} a second on {figures['chips']} chip(s), by that estimate"),
        ]
    else:
        rows.append(("time", "no estimate: the peak of this chip is not known"))
    return _lines([*rows, ("compiled in", f"{figures['compile_seconds']:.0f} s")])


def with_measured(figures: dict[str, Any], run: Run) -> dict[str, Any]:
    """The figures of a plan, with those of its program as it ran under the name `measured`."""
    per_image = figures["forward_flops_per_image"] * figures["floor_forwards"]
    achieved = per_image * figures["batch"] / figures["chips"] / run.seconds
    return figures | {
        "measured": {
            "device": run.device,
            "processes": run.processes,
            "updates": len(run.each),
            "seconds": run.seconds,
            "seconds_of_each": list(run.each),
            "images_per_second": figures["batch"] / run.seconds,
            "peak_bytes_per_chip": run.peak,
            "peak_by": run.peak_by,
            "flops_per_second": achieved,
            "utilisation": achieved / figures["chip_flops"] if figures["chip_known"] else None,
        }
    }


def table_of_measured(figures: dict[str, Any]) -> str:
    """What was measured, as lines like those of `table`, each beside the plan's figure."""
    found, known = figures["measured"], figures["chip_known"]
    each, planned = found["seconds_of_each"], figures["bytes_per_chip"]["peak"]

    def beside(text: str) -> str:
        return f"; the plan: {text}" if known else ""

    memory = f"not known here; the compiled program's: {planned / GB:.3f} GB a chip"
    if found["peak_bytes_per_chip"] is not None:
        peak = found["peak_bytes_per_chip"]
        memory = (
            f"{peak / GB:.3f} GB a chip at the peak, by {found['peak_by']}; the compiled program's: "
            f"{planned / GB:.3f} GB ({100 * (peak / planned - 1):+.1f} %)"
        )
    rows = [
        (
            "measured",
            f"{found['updates']} updates of random weights, after {DROPPED} that do not count, on {figures['chips']} x "
            f"{found['device']} in {found['processes']} process(es)",
        ),
        (
            "  time",
            f"{1e3 * found['seconds']:.1f} ms an update, the median of {1e3 * min(each):.1f} to {1e3 * max(each):.1f}"
            + beside(f"{1e3 * figures['seconds_estimate']:.1f}"),
        ),
        (
            "  images",
            f"{found['images_per_second']:.1f} a second" + beside(f"{figures['images_per_second']:.1f}"),
        ),
        ("  memory", memory),
    ]
    if known:
        share = beside(f"{100 * figures['utilisation']:.1f} %")
        rows.append(("  utilisation", f"{100 * found['utilisation']:.1f} % of the peak, of the floor's FLOPs{share}"))
    return _lines(rows)


def _count(number: float) -> str:
    unit, prefix = next((pair for pair in _PREFIXES if number >= pair[0]), (1, ""))
    return f"{number / unit:.2f} {prefix}".rstrip()


def _time(figures: dict[str, Any]) -> str:
    source = "the instructions' roofline" if figures["compiler_seconds"] is None else "the compiler's estimate"
    parts = []
    if figures["kernel_flops"]:
        parts.append(f"{1e3 * figures['kernel_seconds']:.1f} for attention kernels at {KERNEL_SHARE:.0%} of the peak")
    if figures["launch_seconds"]:
        parts.append(f"{1e3 * figures['launch_seconds']:.1f} for launches")
    text = f"{1e3 * figures['seconds_estimate']:.1f} ms an update by {source}"
    if parts:
        text += f", of them {' and '.join(parts)}"
    return text + "; transfers between chips are left out"


def _lines(rows: list[tuple[str, str]]) -> str:
    width = max(_WIDTH, *(len(name) for name, _ in rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
