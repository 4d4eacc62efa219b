"""One iteration of SiD in plain PyTorch, float64: the reference that the JAX train step is compared with.

It shares no code with `sid_jax`: the schedule, the noising and the velocity are those of diffusers' DDPMScheduler;
guidance is two separate forward passes; gradients are autograd's; the optimizer is torch's Adam. Images are
[B, C, H, W] here. Every random draw is an argument.
"""

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler


class Net(torch.nn.Module):
    """The network of `tiny_network.py`, from the same arrays."""

    def __init__(self, params):
        super().__init__()
        for name, value in params.items():
            self.register_parameter(name, torch.nn.Parameter(torch.tensor(value, dtype=torch.float64)))

    def forward(self, x, t, cond):
        h = self.features(x, t, cond)
        return x + 0.3 * self.conv(h, self.conv_out) + self.bias_out[:, None, None]

    def features(self, x, t, cond):
        text, pooled = cond
        angles = t[:, None].double() * torch.tensor([1e-3, 3e-3, 1e-2, 3e-2], dtype=torch.float64)
        time = torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)
        embedding = time @ self.time + text.mean(dim=1) @ self.text + pooled @ self.pooled
        embedding = embedding[:, :, None, None]
        h = self.conv(x, self.conv_in)
        h = F.silu(h * (1 + embedding) + embedding)
        return h + F.silu(self.conv(h, self.conv_mid))

    @staticmethod
    def conv(x, kernel):
        return F.conv2d(x, kernel.permute(3, 2, 0, 1), padding=1)

    def gradients(self):
        return {name: p.grad.numpy() for name, p in self.named_parameters()}


class Reference:
    def __init__(self, scheduler_config, table, empty_tokens, **settings):
        self.scheduler = DDPMScheduler(**scheduler_config)
        self.table = torch.tensor(table, dtype=torch.float64)
        self.empty_tokens = torch.tensor(empty_tokens).long()
        self.s = settings

    def encode(self, tokens):
        text = self.table[tokens]
        return text, text.max(dim=1).values

    def to_x0(self, x_t, t, output):
        abar = self.scheduler.alphas_cumprod.double()[t][:, None, None, None]
        if self.scheduler.config.prediction_type == "epsilon":
            return (x_t - (1 - abar).sqrt() * output) / abar.sqrt()
        return abar.sqrt() * x_t - (1 - abar).sqrt() * output

    def generate(self, generator, z, cond, n):
        """x_g after n evaluations, with the gradient of the last; z is [K, B, C, H, W]."""
        num_steps, start = self.s["num_steps"], self.s["start"]
        x = torch.zeros_like(z[0])
        last_x_t = last_t = None
        for k in range(n):
            t = torch.full((len(x),), int(np.floor(start * (1 - k / num_steps) + 1e-9)))
            x = x.detach()
            if k == 0 or self.s["noise"] == "fixed":
                noise = z[0]
            elif self.s["noise"] == "fresh":
                noise = z[k]
            else:
                abar = self.scheduler.alphas_cumprod.double()[last_t][:, None, None, None]
                noise = (last_x_t - abar.sqrt() * x) / (1 - abar).sqrt()
            x_t = self.scheduler.add_noise(x, noise, t)
            if k == 0 and self.s["first"] == "unit":
                x_t = z[0]
            with torch.set_grad_enabled(k == n - 1 and torch.is_grad_enabled()):
                x = self.to_x0(x_t, t, generator(x_t, t, cond))
            last_x_t, last_t = x_t.detach(), t
        return x

    def guided(self, net, x_t, t, cond, kappa):
        empty = self.encode(self.empty_tokens.expand(len(x_t), -1))
        with_text, without_text = net(x_t, t, cond), net(x_t, t, empty)
        return without_text + kappa * (with_text - without_text)

    def fake_loss(self, fake, x_g, t, noise, tokens):
        x_t = self.scheduler.add_noise(x_g, noise, t)
        output = self.guided(fake, x_t, t, self.encode(tokens), self.s["kappa1"])
        if self.scheduler.config.prediction_type == "epsilon":
            return ((output - noise) ** 2).sum() / len(x_g)
        abar = self.scheduler.alphas_cumprod.double()[t][:, None, None, None]
        snr = abar / (1 - abar)
        target = self.scheduler.get_velocity(x_g, noise, t)
        return (snr / (snr + 1) * (output - target) ** 2).sum() / len(x_g)

    def generator_loss(self, teacher, fake, x_g, t, noise, tokens):
        cond = self.encode(tokens)
        x_t = self.scheduler.add_noise(x_g, noise, t)
        y_real = self.to_x0(x_t, t, self.guided(teacher, x_t, t, cond, self.s["kappa4"]))
        y_fake2 = self.to_x0(x_t, t, self.guided(fake, x_t, t, cond, self.s["kappa2"]))
        y_fake3 = self.to_x0(x_t, t, self.guided(fake, x_t, t, cond, self.s["kappa3"]))
        w = self.weight(x_g, y_real, t)
        loss = w * (y_real - y_fake2) * ((y_real - x_g) - self.s["alpha"] * (y_real - y_fake3))
        return self.s["loss_scale"] * loss.sum() / len(x_g)

    def logits(self, fake, x, t, noise, tokens):
        """The discriminator of section 6; it reads the text unless kappa1 is 0."""
        if self.s["kappa1"] == 0:
            tokens = self.empty_tokens.expand(len(x), -1)
        features = fake.features(self.scheduler.add_noise(x, noise, t), t, self.encode(tokens))
        return features.mean(dim=1).clamp(-10, 10)

    def entropy(self, logits, label):
        """The mean over the map, times the elements of a latent, for each sample: [B, 1, 1, 1]."""
        target = torch.full_like(logits, label)
        values = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=(1, 2))
        return (self.s["elements"] * values)[:, None, None, None]

    def discriminator_loss(self, fake, x_g, real, t, noise, tokens, real_tokens):
        of_real = self.entropy(self.logits(fake, real, t, noise, real_tokens), 1.0)
        of_fake = self.entropy(self.logits(fake, x_g, t, noise, tokens), 0.0)
        return (of_real + of_fake).sum() / 2 / len(x_g)

    def adversarial_loss(self, teacher, fake, x_g, t, noise, tokens):
        with torch.no_grad():
            x_t = self.scheduler.add_noise(x_g, noise, t)
            y_real = self.to_x0(x_t, t, self.guided(teacher, x_t, t, self.encode(tokens), self.s["kappa4"]))
            w = self.weight(x_g, y_real, t)
        return (w * self.entropy(self.logits(fake, x_g, t, noise, tokens), 1.0)).sum() / len(x_g)

    def weight(self, x_g, y_real, t):
        abar = self.scheduler.alphas_cumprod.double()[t][:, None, None, None]
        sigma = (1 - abar).sqrt()
        name = self.s["weighting"]
        if name == "sid":
            with torch.no_grad():
                return 1 / (x_g - y_real).abs().mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-5)
        return {
            "snr": abar / sigma**2,
            "snr_sqrt": abar.sqrt() / sigma,
            "1_over_sigma": 1 / sigma,
            "1_over_sigma2": 1 / sigma**2,
            "1_minus_sigma": 1 - sigma,
            "1_minus_sigma_squared": (1 - sigma) ** 2,
        }[name]

    def adam(self, net, lr, step):
        optimizer = torch.optim.Adam(net.parameters(), lr=lr, betas=(0.0, 0.999), eps=self.s["eps"])
        for p in net.parameters():
            zero = torch.zeros_like(p)
            optimizer.state[p] = {"step": torch.tensor(float(step)), "exp_avg": zero, "exp_avg_sq": zero.clone()}
        return optimizer

    def optimizers(self, fake, generator, step):
        """Adam of both networks, as it is before update `step`, with moments of zero."""
        return self.adam(fake, self.s["fake_lr"], step), self.adam(generator, self.s["generator_lr"], step)

    def iteration(self, teacher, fake, generator, tokens, draws, step, optimizers=None):
        """Updates A and B of the given step, on the networks in place: the losses and the gradients.

        `optimizers` are those of the iteration before; by default new ones.

        With lambda_d or lambda_g set, `draws` has real latents, `real`, and `tokens` their captions, `real`. The losses
        are without the GAN terms, the gradients with them.
        """
        lambda_d, lambda_g = self.s.get("lambda_d", 0), self.s.get("lambda_g", 0)
        d = {name: torch.tensor(value) for name, value in draws.items() if name != "n"}
        tokens = {name: torch.tensor(value).long() for name, value in tokens.items()}
        optimizers = optimizers or self.optimizers(fake, generator, step)
        for optimizer in optimizers:
            optimizer.zero_grad()

        # As published, prompts are dropped before anything is made of them. The other order drops them for the loss.
        kept = tokens["fake"]
        of_fake, of_real = (torch.where(d["dropped"][:, None], self.empty_tokens, tokens[c]) for c in ("fake", "real"))
        with torch.no_grad():
            read = of_fake if self.s["drop_before_generator"] else kept
            x_g = self.generate(generator, d["fake_z"], self.encode(read), draws["n"])
        fake_loss = self.fake_loss(fake, x_g, d["fake_t"], d["fake_noise"], of_fake)
        total = fake_loss
        if lambda_d:
            shared = (d["fake_t"], d["fake_noise"], of_fake, of_real)
            total = total + lambda_d * self.discriminator_loss(fake, x_g, d["real"], *shared)
        total.backward()
        optimizers[0].step()
        fake_gradients = {name: value.copy() for name, value in fake.gradients().items()}

        x_g = self.generate(generator, d["generator_z"], self.encode(tokens["generator"]), draws["n"])
        arguments = (teacher, fake, x_g, d["generator_t"], d["generator_noise"], tokens["generator"])
        total = generator_loss = self.generator_loss(*arguments)
        if lambda_g:
            total = total + lambda_g * self.adversarial_loss(*arguments)
        total.backward()
        optimizers[1].step()
        return {
            "fake_loss": fake_loss.item(),
            "generator_loss": generator_loss.item(),
            "fake_gradients": fake_gradients,
            "generator_gradients": generator.gradients(),
        }
