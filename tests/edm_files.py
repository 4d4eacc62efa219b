"""Pickles as EDM's training loop writes them, by PyTorch, of small modules of the tests."""

import contextlib
import functools
import io
import pickle
import sys
import types

import numpy as np
import torch

SOURCE = "raise SystemExit('the source of a module was run')\n" * 40  # longer than any text that is read


def _module(name, **members):
    module = types.ModuleType(name)
    for key, member in members.items():
        member.__module__, member.__qualname__ = name, key
        setattr(module, key, member)
    return module


def _reconstruct_persistent_obj(meta):
    raise AssertionError("a file was unpickled")


class EasyDict(dict):
    """NVIDIA's dict whose items are attributes too."""


MODULES = {
    "torch_utils": _module("torch_utils"),
    "torch_utils.persistence": _module(
        "torch_utils.persistence", _reconstruct_persistent_obj=_reconstruct_persistent_obj
    ),
    "dnnlib": _module("dnnlib"),
    "dnnlib.util": _module("dnnlib.util", EasyDict=EasyDict),
}


class _Pickler(pickle.Pickler):
    """Pickles modules as decorated classes of NVIDIA's do, whatever their class is called in the tests."""

    version = 6
    source = SOURCE

    def reducer_override(self, obj):
        if not isinstance(obj, torch.nn.Module | Plain) or type(obj) is torch.nn.ModuleDict:
            return NotImplemented
        state = dict(obj.__dict__)
        state.pop("_compiled_call_impl", None)  # as PyTorch's modules leave it out
        state = {"_init_args": (), "_init_kwargs": {}, **state}
        meta = {
            "type": "class", "version": self.version, "module_src": self.source,
            "class_name": type(obj).__name__.lstrip("_"), "state": state,
        }  # fmt: skip
        return _reconstruct_persistent_obj, (meta,)


class Plain:
    """An object of a decorated class that is no module, such as the loss."""


class EDMLoss(Plain):
    """Of EDM's loop."""

    def __init__(self):
        self.P_mean, self.P_std, self.sigma_data = -1.2, 1.2, 0.5


def dumps(value, protocol=4, **fields):
    """The bytes of a pickle in which modules are as NVIDIA's decorated classes have them."""
    buffer = io.BytesIO()
    pickler = type("P", (_Pickler,), fields)(buffer, protocol=protocol)
    with known():
        pickler.dump(value)
    return buffer.getvalue()


@contextlib.contextmanager
def known():
    """A context in which the modules of MODULES can be imported."""
    before = {name: sys.modules.get(name) for name in MODULES}
    sys.modules.update(MODULES)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def of_old_numpy(data):
    """The same as NumPy 1 writes it, where `numpy._core` was `numpy.core`."""
    new, old = b"numpy._core.multiarray", b"numpy.core.multiarray"
    assert data.count(new) >= 1
    return data.replace(b"\x8c\x16" + new, b"\x8c\x15" + old).replace(b"c" + new + b"\n", b"c" + old + b"\n")


class Conv2d(torch.nn.Module):
    """Named as EDM's, with its attributes and buffer."""

    def __init__(self, i, o, kernel, up=False):
        super().__init__()
        self.in_channels, self.out_channels, self.up, self.down, self.fused_resample = i, o, up, False, False
        self.weight = torch.nn.Parameter(torch.randn(o, i, kernel, kernel)) if kernel else None
        self.bias = torch.nn.Parameter(torch.randn(o)) if kernel else None
        self.register_buffer("resample_filter", torch.full((1, 1, 2, 2), 0.25) if up else None)


class UNetBlock(torch.nn.Module):
    """Two convolutions and numbers of NumPy's."""

    def __init__(self, channels):
        super().__init__()
        self.in_channels = self.out_channels = channels
        self.skip_scale, self.num_heads, self.adaptive_scale = np.sqrt(0.5), 0, False
        self.conv0, self.conv1, self.skip = Conv2d(channels, channels, 3, up=True), Conv2d(channels, channels, 1), None


class SongUNet(torch.nn.Module):
    """Of two blocks whose names are as EDM's."""

    def __init__(self, channels=4):
        super().__init__()
        self.enc = torch.nn.ModuleDict({
            "8x8_conv": Conv2d(3, channels, 3), "8x8_block0": UNetBlock(channels)
        })  # fmt: skip
        self.dec = torch.nn.ModuleDict({"8x8_up": UNetBlock(channels)})


class EDMPrecond(torch.nn.Module):
    """The preconditioner of such a network."""

    def __init__(self, **kwargs):
        super().__init__()
        self._init_kwargs = kwargs
        self.img_resolution, self.use_fp16, self.sigma_min, self.sigma_max = 8, False, 0, float("inf")
        self.model = SongUNet()


class EDMPrecond_EncoderDecoder(EDMPrecond):
    """SiDA's."""


KWARGS = {
    "img_resolution": 8, "img_channels": 3, "label_dim": 0, "use_fp16": False, "model_type": "SongUNet",
    "channel_mult": [1, 2], "resample_filter": (1, 1), "dropout": 0.13,
}  # fmt: skip


def network(seed=0, cls=EDMPrecond, **kwargs):
    """A small network of that class with random parameters."""
    torch.manual_seed(seed)
    return cls(**{**KWARGS, **kwargs})


def contents(ema=None):
    """What EDM's loop puts into a file."""
    return {
        "ema": network() if ema is None else ema, "loss_fn": EDMLoss(), "augment_pipe": None,
        "dataset_kwargs": {"class_name": "training.dataset.ImageFolderDataset", "path": "/data/x.zip"},
    }  # fmt: skip


@functools.cache
def plain(protocol=4):
    """The bytes of such a file."""
    return dumps(contents(), protocol)


def tensors_of(bundle):
    """The parameters of an opened file by their names."""
    return dict(bundle.weights("denoiser").tensors())


class Call:
    """An object that is pickled as the call of something."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments, state)

    def __reduce__(self):
        return self.reduced
