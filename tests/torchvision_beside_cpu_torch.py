"""Lets torchvision be imported beside a build of PyTorch that is not the one it was compiled for.

PyPI's torchvision fails to load its operators beside a CPU build of PyTorch, and then its import fails, as it registers
the shapes of operators that nobody has defined: "operator torchvision::nms does not exist". transformers imports it
where it is installed, so that CLIP would fail with it. Two operators that are declared and never called are enough.

`install()` only puts a finder before those of the interpreter: PyTorch is imported when torchvision is, not before.
"""

import importlib.abc
import importlib.machinery
import sys

_OPERATORS = ("nms", "qnms")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class _Loader(importlib.abc.Loader):
    """torchvision's own loader, which is asked a second time once the operators are declared."""

    def __init__(self, own):
        self._own = own

    def __getattr__(self, name):
        return getattr(self._own, name)

    def create_module(self, spec):
        return self._own.create_module(spec)

    def exec_module(self, module):
        try:
            self._own.exec_module(module)
        except RuntimeError as error:
            if "operator torchvision::" not in str(error):
                raise
            import torch

            for name in [name for name in sys.modules if name.startswith("torchvision.")]:
                del sys.modules[name]
            # The declarations last as long as the library does.
            module.declared_by_tests = library = torch.library.Library("torchvision", "FRAGMENT")
            for name in _OPERATORS:
                library.define(name + _SIGNATURE)
            self._own.exec_module(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "torchvision":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def install():
    """Makes every later import of torchvision succeed; without torchvision nothing changes."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
