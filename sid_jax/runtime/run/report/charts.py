"""Which of a run's values are drawn together, and what is said of them."""

from collections.abc import Sequence
from typing import Any

_CHARTS = (
    (
        "Signal of convergence",
        "The first falls as the student learns, and comes to rest.",
        {"teacher_fake_gap": "|teacher - fake network|", "generator_teacher_gap": "|generator - teacher|"},
    ),
    ("Loss of the fake network", "", {"fake_loss": "fake_loss"}),
    ("Loss of the generator", "No distance: it has either sign.", {"generator_loss": "generator_loss"}),
    ("Norms of the gradients", "", {"fake_grad_norm": "fake network", "generator_grad_norm": "generator"}),
    ("Frechet distance", "Lower is better.", {"frechet_distance": "frechet_distance"}),
    (
        "Shares", "",
        {"prompt_accuracy": "prompt accuracy", "precision": "precision", "recall": "recall"},
    ),
    (
        "Cross entropies of the discriminator", "0.69 is guessing.",
        {"discriminator_loss": "discriminator", "adversarial_loss": "generator"},
    ),
    ("Discriminator", "", {"real_logit": "real images", "fake_logit": "generated images"}),
    ("Throughput", "", {"timing/images_per_second": "images/s"}),
)  # fmt: skip
"""Title, a sentence, and the label of each value by its name."""

Chart = dict[str, Any]


def arranged(names: Sequence[str]) -> tuple[list[Chart], list[Chart], dict[str, str]]:
    """The charts of values that are there; a chart for each value that none of those has; and labels by name."""
    charts: list[Chart] = []
    for title, about, labels in _CHARTS:
        there = [name for name in labels if name in names]
        if there:
            charts.append({"title": title, "about": about, "names": there})
    labels = {name: label for *_, labels in _CHARTS for name, label in labels.items()}
    others = [{"title": name, "about": "", "names": [name]} for name in names if name not in labels]
    return charts, others, labels
