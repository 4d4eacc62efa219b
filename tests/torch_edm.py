"""EDM's networks and preconditioners in PyTorch, as the tests' reference.

They are written from the published description, plainly rather than fast. A preconditioner is made from the
`init_kwargs` that files record. `state_dict()` has the published names, buffers included; and each module keeps the
plain attributes by which a file describes it.
"""

import math
from typing import ClassVar

import numpy as np
import torch
from torch.nn import functional

ROOT_HALF = np.sqrt(0.5)


def drawn(law, shape, fan_in, fan_out):
    """Initial values."""
    if law == "xavier_uniform":
        return math.sqrt(6 / (fan_in + fan_out)) * (2 * torch.rand(*shape) - 1)
    if law == "kaiming_uniform":
        return math.sqrt(3 / fan_in) * (2 * torch.rand(*shape) - 1)
    assert law == "kaiming_normal"
    return math.sqrt(1 / fan_in) * torch.randn(*shape)


class Linear(torch.nn.Module):
    def __init__(self, in_features, out_features, bias=True, law="kaiming_normal", scale=1, bias_scale=0):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        fans = in_features, out_features
        self.weight = torch.nn.Parameter(scale * drawn(law, (out_features, in_features), *fans))
        self.bias = torch.nn.Parameter(bias_scale * drawn(law, (out_features,), *fans)) if bias else None

    def forward(self, x):
        return functional.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class Conv2d(torch.nn.Module):
    def __init__(
        self, in_channels, out_channels, kernel, up=False, down=False, taps=(1, 1), fused=False,
        law="kaiming_normal", scale=1, bias_scale=0,
    ):  # fmt: skip
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.up, self.down, self.fused_resample = up, down, fused
        fans = in_channels * kernel**2, out_channels * kernel**2
        self.weight = self.bias = None
        if kernel:
            self.weight = torch.nn.Parameter(scale * drawn(law, (out_channels, in_channels, kernel, kernel), *fans))
            self.bias = torch.nn.Parameter(bias_scale * drawn(law, (out_channels,), *fans))
        taps = torch.tensor(taps, dtype=torch.float32)
        taps = taps.outer(taps)[None, None] / taps.sum() ** 2
        self.register_buffer("resample_filter", taps if up or down else None)

    def forward(self, x):
        weight = None if self.weight is None else self.weight.to(x.dtype)
        bias = None if self.bias is None else self.bias.to(x.dtype)[:, None, None]
        if self.resample_filter is not None:
            taps, padding = self.resample_filter.to(x.dtype), (self.resample_filter.shape[-1] - 1) // 2
        if self.fused_resample:
            x = functional.conv2d(x, weight, padding=weight.shape[-1] // 2 + padding)
            return functional.conv2d(x, taps.repeat(x.shape[1], 1, 1, 1), groups=x.shape[1], stride=2) + bias
        if self.up:
            taps = (4 * taps).repeat(x.shape[1], 1, 1, 1)
            x = functional.conv_transpose2d(x, taps, groups=x.shape[1], stride=2, padding=padding)
        if self.down:
            x = functional.conv2d(x, taps.repeat(x.shape[1], 1, 1, 1), groups=x.shape[1], stride=2, padding=padding)
        return x if weight is None else functional.conv2d(x, weight, padding=weight.shape[-1] // 2) + bias


class GroupNorm(torch.nn.Module):
    def __init__(self, channels, eps=1e-5):
        super().__init__()
        self.num_groups, self.eps = min(32, channels // 4), eps
        self.weight, self.bias = torch.nn.Parameter(torch.ones(channels)), torch.nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return functional.group_norm(x, self.num_groups, weight, bias, self.eps)


class PositionalEmbedding(torch.nn.Module):
    def __init__(self, num_channels, max_positions=10000, endpoint=False):
        super().__init__()
        self.num_channels, self.max_positions, self.endpoint = num_channels, max_positions, endpoint

    def forward(self, x):
        half = self.num_channels // 2
        frequencies = (1 / self.max_positions) ** (torch.arange(half, dtype=torch.float32) / (half - self.endpoint))
        angles = x[:, None] * frequencies.to(x.dtype)
        return torch.cat([angles.cos(), angles.sin()], 1)


class FourierEmbedding(torch.nn.Module):
    def __init__(self, num_channels, scale=16):
        super().__init__()
        self.register_buffer("freqs", torch.randn(num_channels // 2) * scale)

    def forward(self, x):
        angles = x[:, None] * (2 * np.pi * self.freqs).to(x.dtype)
        return torch.cat([angles.cos(), angles.sin()], 1)


class UNetBlock(torch.nn.Module):
    def __init__(self, in_channels, out_channels, emb_channels, num_heads, up, down, style):
        super().__init__()
        self.in_channels, self.out_channels, self.emb_channels = in_channels, out_channels, emb_channels
        self.num_heads, self.dropout = num_heads, style["dropout"]
        self.skip_scale, self.adaptive_scale = style["skip_scale"], style["adaptive_scale"]
        eps, init, qkv, last = style["eps"], style["init"], style["init_qkv"], style["init_last"]
        change = {"up": up, "down": down, "taps": style["taps"]}
        self.norm0 = GroupNorm(in_channels, eps)
        self.conv0 = Conv2d(in_channels, out_channels, 3, **change, **init)
        self.affine = Linear(emb_channels, out_channels * (2 if self.adaptive_scale else 1), **init)
        self.norm1 = GroupNorm(out_channels, eps)
        self.conv1 = Conv2d(out_channels, out_channels, 3, **last)
        self.skip = None
        if out_channels != in_channels or up or down:
            kernel = 1 if out_channels != in_channels or style["resample_proj"] else 0
            self.skip = Conv2d(in_channels, out_channels, kernel, **change, **init)
        if num_heads:
            self.norm2 = GroupNorm(out_channels, eps)
            self.qkv = Conv2d(out_channels, 3 * out_channels, 1, **qkv)
            self.proj = Conv2d(out_channels, out_channels, 1, **last)

    def forward(self, x, emb):
        h = self.conv0(functional.silu(self.norm0(x)))
        told = self.affine(emb)[:, :, None, None].to(h.dtype)
        if self.adaptive_scale:
            scale, shift = told.chunk(2, dim=1)
            h = functional.silu(shift + self.norm1(h) * (scale + 1))
        else:
            h = functional.silu(self.norm1(h + told))
        h = self.conv1(functional.dropout(h, self.dropout, self.training))
        x = (h + (x if self.skip is None else self.skip(x))) * self.skip_scale
        return (x + self.attention(x)) * self.skip_scale if self.num_heads else x

    def attention(self, x):
        batch, channels, height, width = x.shape
        split = self.qkv(self.norm2(x)).reshape(batch, self.num_heads, channels // self.num_heads, 3, height * width)
        q, k, v = split.unbind(3)
        logits = torch.einsum("bhcq,bhck->bhqk", q.float(), k.float() / math.sqrt(k.shape[2]))
        out = torch.einsum("bhqk,bhck->bhcq", logits.softmax(-1).to(v.dtype), v)
        return self.proj(out.reshape(x.shape))


def encoder(first, resolution, channels, settings, style):
    """The entries of an encoder, and the numbers of channels that its decoder reads again."""
    entries, skips, c, aux = {}, [first], first, channels
    for level, multiple in enumerate(settings["channel_mult"]):
        side, out = resolution >> level, settings["model_channels"] * multiple
        if level == 0:
            entries[f"{side}x{side}_conv"] = Conv2d(channels, c, 3, **style["init"])
        else:
            entries[f"{side}x{side}_down"] = UNetBlock(c, c, style["emb"], 0, False, True, style)
            if style.get("residual"):
                options = {"down": True, "fused": True, "taps": style["taps"]}
                entries[f"{side}x{side}_aux_residual"] = Conv2d(aux, c, 3, **options, **style["init"])
                aux = c
            skips.append(c)
        for i in range(settings["num_blocks"]):
            heads = style["heads"](out) if side in settings["attn_resolutions"] else 0
            entries[f"{side}x{side}_block{i}"] = UNetBlock(c, out, style["emb"], heads, False, False, style)
            c = out
            skips.append(c)
    return torch.nn.ModuleDict(entries), skips


def decoder(skips, resolution, settings, style):
    """The entries of a decoder, but for its last layers."""
    entries, skips, c = {}, list(skips), skips[-1]
    last = len(settings["channel_mult"]) - 1
    for level in range(last, -1, -1):
        side, out = resolution >> level, settings["model_channels"] * settings["channel_mult"][level]
        if level == last:
            entries[f"{side}x{side}_in0"] = UNetBlock(c, c, style["emb"], style["heads"](c), False, False, style)
            entries[f"{side}x{side}_in1"] = UNetBlock(c, c, style["emb"], 0, False, False, style)
        else:
            entries[f"{side}x{side}_up"] = UNetBlock(c, c, style["emb"], 0, True, False, style)
        for i in range(settings["num_blocks"] + 1):
            attention = side in settings["attn_resolutions"] and style["attends"](i)
            heads = style["heads"](out) if attention else 0
            entries[f"{side}x{side}_block{i}"] = UNetBlock(
                c + skips.pop(), out, style["emb"], heads, False, False, style
            )
            c = out
    return torch.nn.ModuleDict(entries)


class SongUNet(torch.nn.Module):
    def __init__(
        self, img_resolution, in_channels, out_channels, label_dim=0, augment_dim=0, model_channels=128,
        channel_mult=(1, 2, 2, 2), channel_mult_emb=4, num_blocks=4, attn_resolutions=(16,), dropout=0.10,
        label_dropout=0, embedding_type="positional", channel_mult_noise=1, encoder_type="standard",
        decoder_type="standard", resample_filter=(1, 1),
    ):  # fmt: skip
        super().__init__()
        assert decoder_type == "standard" and label_dropout == 0
        self.label_dropout = label_dropout
        emb, noise = model_channels * channel_mult_emb, model_channels * channel_mult_noise
        init = {"law": "xavier_uniform"}
        fourier = embedding_type == "fourier"
        self.map_noise = FourierEmbedding(noise) if fourier else PositionalEmbedding(noise, endpoint=True)
        self.map_label = Linear(label_dim, noise, **init) if label_dim else None
        self.map_augment = Linear(augment_dim, noise, bias=False, **init) if augment_dim else None
        self.map_layer0, self.map_layer1 = Linear(noise, emb, **init), Linear(emb, emb, **init)
        style = {
            "emb": emb, "dropout": dropout, "skip_scale": ROOT_HALF, "adaptive_scale": False, "eps": 1e-6,
            "resample_proj": True, "taps": resample_filter, "residual": encoder_type == "residual",
            "heads": lambda channels: 1, "attends": lambda block: block == num_blocks, "init": init,
            "init_qkv": {**init, "scale": np.sqrt(0.2)}, "init_last": {**init, "scale": 1e-5},
        }  # fmt: skip
        settings = {
            "model_channels": model_channels, "channel_mult": channel_mult, "num_blocks": num_blocks,
            "attn_resolutions": attn_resolutions,
        }  # fmt: skip
        self.enc, skips = encoder(model_channels, img_resolution, in_channels, settings, style)
        self.dec = decoder(skips, img_resolution, settings, style)
        last, side = model_channels * channel_mult[0], img_resolution
        self.dec[f"{side}x{side}_aux_norm"] = GroupNorm(last, eps=1e-6)
        self.dec[f"{side}x{side}_aux_conv"] = Conv2d(last, out_channels, 3, **style["init_last"])

    def forward(self, x, noise_labels, class_labels, augment_labels=None):
        cosines, sines = self.map_noise(noise_labels).chunk(2, dim=1)
        emb = torch.cat([sines, cosines], 1)
        if self.map_label is not None:
            emb = emb + self.map_label(class_labels * np.sqrt(self.map_label.in_features))
        if self.map_augment is not None and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels)
        emb = functional.silu(self.map_layer1(functional.silu(self.map_layer0(emb))))
        skips, aux = [], x
        for name, module in self.enc.items():
            if name.endswith("_aux_residual"):
                aux = skips[-1] = (skips[-1] + module(aux)) / np.sqrt(2)
            elif name.endswith("_conv"):
                skips.append(module(x))
            else:
                skips.append(module(skips[-1], emb))
        self.features = x = skips[-1]
        for name, module in self.dec.items():
            if name.endswith("_aux_norm"):
                x = functional.silu(module(x))
            elif name.endswith("_aux_conv"):
                x = module(x)
            else:
                x = module(torch.cat([x, skips.pop()], 1) if "_block" in name else x, emb)
        return x


class DhariwalUNet(torch.nn.Module):
    def __init__(
        self, img_resolution, in_channels, out_channels, label_dim=0, augment_dim=0, model_channels=192,
        channel_mult=(1, 2, 3, 4), channel_mult_emb=4, num_blocks=3, attn_resolutions=(32, 16, 8), dropout=0.10,
        label_dropout=0,
    ):  # fmt: skip
        super().__init__()
        assert label_dropout == 0
        self.label_dropout = label_dropout
        emb = model_channels * channel_mult_emb
        init = {"law": "kaiming_uniform", "scale": np.sqrt(1 / 3), "bias_scale": np.sqrt(1 / 3)}
        zero = {"law": "kaiming_uniform", "scale": 0, "bias_scale": 0}
        self.map_noise = PositionalEmbedding(model_channels)
        self.map_augment = Linear(augment_dim, model_channels, bias=False, **zero) if augment_dim else None
        self.map_layer0, self.map_layer1 = Linear(model_channels, emb, **init), Linear(emb, emb, **init)
        law = {"law": "kaiming_normal", "scale": np.sqrt(label_dim)}
        self.map_label = Linear(label_dim, emb, bias=False, **law) if label_dim else None
        style = {
            "emb": emb, "dropout": dropout, "skip_scale": 1, "adaptive_scale": True, "eps": 1e-5,
            "resample_proj": False, "taps": (1, 1), "heads": lambda channels: channels // 64,
            "attends": lambda block: True, "init": init, "init_qkv": init, "init_last": zero,
        }  # fmt: skip
        settings = {
            "model_channels": model_channels, "channel_mult": channel_mult, "num_blocks": num_blocks,
            "attn_resolutions": attn_resolutions,
        }  # fmt: skip
        self.enc, skips = encoder(model_channels * channel_mult[0], img_resolution, in_channels, settings, style)
        self.dec = decoder(skips, img_resolution, settings, style)
        self.out_norm = GroupNorm(model_channels * channel_mult[0])
        self.out_conv = Conv2d(model_channels * channel_mult[0], out_channels, 3, **zero)

    def forward(self, x, noise_labels, class_labels, augment_labels=None):
        emb = self.map_noise(noise_labels)
        if self.map_augment is not None and augment_labels is not None:
            emb = emb + self.map_augment(augment_labels)
        emb = self.map_layer1(functional.silu(self.map_layer0(emb)))
        if self.map_label is not None:
            emb = emb + self.map_label(class_labels)
        emb = functional.silu(emb)
        skips = []
        for module in self.enc.values():
            skips.append(module(skips[-1], emb) if skips else module(x))
        self.features = x = skips[-1]
        for name, module in self.dec.items():
            x = module(torch.cat([x, skips.pop()], 1) if "_block" in name else x, emb)
        return self.out_conv(functional.silu(self.out_norm(x)))


class Precond(torch.nn.Module):
    """What the four have in common; `forward` is D(x; sigma)."""

    defaults: ClassVar = {}
    outputs = 1

    def __init__(self, img_resolution, img_channels, label_dim=0, use_fp16=False, model_type="SongUNet", **kwargs):
        super().__init__()
        given = dict(self.defaults)
        given.update({key: kwargs.pop(key) for key in self.defaults if key in kwargs})
        for key, value in given.items():
            setattr(self, key, value)
        self.img_resolution, self.img_channels, self.label_dim = img_resolution, img_channels, label_dim
        self.use_fp16 = use_fp16
        network = {"SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet}[model_type]
        self.model = network(
            img_resolution=img_resolution,
            in_channels=img_channels,
            out_channels=img_channels * self.outputs,
            label_dim=label_dim,
            **kwargs,
        )

    def forward(self, x, sigma, class_labels=None, augment_labels=None, half=None):
        """The denoised images `[B, C, H, W]`; `class_labels` are one-hot, `half` is the type that F computes in."""
        x, sigma = x.float(), sigma.float().reshape(-1, 1, 1, 1)
        if self.label_dim and class_labels is None:
            class_labels = torch.zeros(1, self.label_dim)
        c_skip, c_out, c_in, c_noise = self.coefficients(sigma)
        inside = (c_in * x).to(half or torch.float32)
        output = self.model(inside, c_noise.flatten(), class_labels if self.label_dim else None, augment_labels)
        return c_skip * x + c_out * output[:, : self.img_channels].float()


class EDMPrecond(Precond):
    defaults: ClassVar = {"sigma_min": 0, "sigma_max": float("inf"), "sigma_data": 0.5}

    def __init__(self, *args, model_type="DhariwalUNet", **kwargs):
        super().__init__(*args, model_type=model_type, **kwargs)

    def coefficients(self, sigma):
        data = self.sigma_data
        total = sigma**2 + data**2
        return data**2 / total, sigma * data / total.sqrt(), 1 / total.sqrt(), sigma.log() / 4


class VPPrecond(Precond):
    defaults: ClassVar = {"beta_d": 19.9, "beta_min": 0.1, "M": 1000, "epsilon_t": 1e-5}

    def coefficients(self, sigma):
        time = ((self.beta_min**2 + 2 * self.beta_d * (1 + sigma**2).log()).sqrt() - self.beta_min) / self.beta_d
        return 1, -sigma, 1 / (sigma**2 + 1).sqrt(), (self.M - 1) * time


class VEPrecond(Precond):
    defaults: ClassVar = {"sigma_min": 0.02, "sigma_max": 100}

    def coefficients(self, sigma):
        return 1, sigma, torch.ones(()), (0.5 * sigma).log()


class iDDPMPrecond(Precond):
    defaults: ClassVar = {"C_1": 0.001, "C_2": 0.008, "M": 1000}
    outputs = 2

    def __init__(self, *args, model_type="DhariwalUNet", **kwargs):
        super().__init__(*args, model_type=model_type, **kwargs)
        signal = torch.sin(0.5 * np.pi * torch.arange(self.M + 1) / self.M / (self.C_2 + 1)) ** 2
        u = torch.zeros(self.M + 1)
        for j in range(self.M, 0, -1):
            u[j - 1] = ((u[j] ** 2 + 1) / (signal[j - 1] / signal[j]).clip(min=self.C_1) - 1).sqrt()
        self.register_buffer("u", u)

    def coefficients(self, sigma):
        index = (sigma.reshape(-1, 1) - self.u).abs().argmin(1)
        return 1, -sigma, 1 / (sigma**2 + 1).sqrt(), (self.M - 1 - index).float().reshape(-1, 1, 1, 1)


PRECONDITIONERS = {each.__name__: each for each in (EDMPrecond, VPPrecond, VEPrecond, iDDPMPrecond)}


@torch.no_grad()
def varied(network, seed=0):
    """The same network, with noise in all its parameters, so that none is zero; `freqs` are drawn by the seed too.

    They are a quarter of what files have, as logarithms of noise levels differ by 1e-7 between libraries.
    """
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        spread = 0.5 / math.sqrt(parameter[0].numel()) if parameter.ndim > 1 else 0.1
        parameter += spread * torch.randn(parameter.shape, generator=generator)
    for name, buffer in network.named_buffers():
        if name.endswith("freqs"):
            buffer.copy_(4 * torch.randn(buffer.shape, generator=generator))
    return network.eval()
