"""Iterations of SiD and SiDA on a teacher of EDM in plain PyTorch, float64, as the published loops go through them.

It shares no code with `sid_jax`. Images are [B, C, H, W] here, and every random draw is an argument. A sample that is
not a number is taken out of the batch before the arithmetic; what is divided by stays.
"""

import torch
import torch.nn.functional as F
from torch_reference import Net

DATA = 0.5  # sigma_data


class Denoiser(Net):
    """D of the network of `tiny_network.py` under EDM's preconditioning; not a number where a text says so."""

    def forward(self, x, sigma, cond):
        return self.both(x, sigma, cond)[0]

    def both(self, x, sigma, cond):
        """D, and the discriminator's logits."""
        s = sigma[:, None, None, None]
        total = s**2 + DATA**2
        inputs, noise = x / total.sqrt(), 250 * sigma.log()
        output = super().forward(inputs, noise, cond)
        text, _ = cond
        image = DATA**2 / total * x + s * DATA / total.sqrt() * output
        image = torch.where((text[:, 0, 0] > 100)[:, None, None, None], torch.nan, image)
        return image, self.features(inputs, noise, cond).mean(dim=1)


def without_nan(images):
    """The images, and which of them are numbers; the others are zeros, as 0 times NaN is NaN in the backward pass."""
    kept = ~torch.isnan(images).flatten(1).any(1)
    return torch.where(kept[:, None, None, None], images, 0), kept


class Loop:
    """Three networks, and the numbers of a run; `iteration` changes generator, fake network and average in place."""

    def __init__(self, teacher, fake, generator, **numbers):
        self.teacher, self.fake, self.generator, self.s = teacher, fake, generator, numbers
        self.ema = {name: p.detach().clone() for name, p in generator.named_parameters()}
        self.adams = [
            torch.optim.Adam(net.parameters(), lr=numbers["lr"], betas=(0.0, 0.999), eps=numbers["eps"])
            for net in (fake, generator)
        ]

    def generate(self, z, cond):
        return self.generator(2.5 * z, torch.full((len(z),), 2.5, dtype=torch.float64), cond)

    def bce(self, logits, label, kept):
        """The mean over maps and samples of each group, for each sample of it."""
        values = F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label), reduction="none")
        means = [
            values[first : first + self.s["group"]][kept[first : first + self.s["group"]]].mean()
            for first in range(0, len(values), self.s["group"])
        ]
        return torch.stack(means).repeat_interleave(self.s["group"])

    def update_fake(self, draws, cond):
        with torch.no_grad():
            y, numbers = without_nan(self.generate(draws["fake_z"][0], cond))
        sigma, noise = draws["fake_t"].double(), draws["fake_noise"]
        each = sigma[:, None, None, None]
        omega = (sigma**2 + DATA**2) / (sigma * DATA) ** 2
        output, logits = self.fake.both(y + each * noise, sigma, cond)
        kept = numbers & without_nan(output)[1]
        loss = (omega[kept, None, None, None] * (output[kept] - y[kept]) ** 2).sum() / len(y)
        total, of_d = loss, torch.zeros(())
        if self.s["gan"]:
            _, of_real = self.fake.both(draws["real"] + each * noise, sigma, cond)
            entropy = (self.bce(of_real, 1.0, kept) + self.bce(logits, 0.0, kept)) / 2
            of_d = entropy[kept].sum() / len(y)
            total = loss + (omega * entropy)[kept].sum() / len(y)
        self.step(0, self.fake, total, self.s["clip_fake"])
        return loss.item(), of_d.item()

    def update_generator(self, draws, cond, adversarial):
        x, kept = without_nan(self.generate(draws["generator_z"][0], cond))
        sigma, noise = draws["generator_t"].double(), draws["generator_noise"]
        x_t = x + sigma[:, None, None, None] * noise
        y_real = self.teacher(x_t, sigma, cond)
        y_fake, logits = self.fake.both(x_t, sigma, cond)
        kept = kept & without_nan(y_real)[1] & without_nan(y_fake)[1]
        batch, elements = len(x), x[0].numel()
        x, y_real, y_fake = x[kept], y_real[kept], y_fake[kept]
        with torch.no_grad():
            w = 1 / (x - y_real).abs().mean(dim=(1, 2, 3)).clamp(min=1e-5)
        difference = y_real - y_fake
        terms = w[:, None, None, None] * difference * ((y_real - x) - self.s["alpha"] * difference)
        total = loss = 100 * terms.sum() / batch
        if adversarial:
            entropy = self.bce(logits.clamp(-10, 10), 1.0, kept)[kept]
            total = 0.5 * loss + 0.5 * 0.01 * elements * (w * entropy).sum() / batch
        self.step(1, self.generator, total, None)
        return total.item() if not adversarial else 0.5 * loss.item()

    def step(self, which, net, loss, clip):
        self.adams[which].zero_grad()
        loss.backward(inputs=list(net.parameters()))
        if clip:
            torch.nn.utils.clip_grad_value_(net.parameters(), clip)
        self.adams[which].step()

    def average(self, seen, batch):
        half = min(self.s["half_life"], 0.05 * seen)
        beta = 0.5 ** (batch / max(half, 1e-8))
        for name, p in self.generator.named_parameters():
            self.ema[name] = p.detach().lerp(self.ema[name], beta)
