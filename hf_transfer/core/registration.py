"""When our architectures and tuners are registered: as soon as transformers, or PEFT, is imported, and not before.

`import hf_transfer` alone imports neither, so that `hf-transfer --help` starts at once and `hf-transfer doctor` runs
where one of them is missing or broken. Whoever imports transformers, before or after `import hf_transfer`, finds
Flowformer among the Auto classes and "flow" among the attention functions; whoever imports PEFT finds the tuners.

A registration waits until no module of ours, of transformers or of PEFT is half imported, because it imports such
modules itself. One that fails is a warning: the user's own import of transformers must not fail because of it.

Nothing but the standard library is imported here.
"""

from __future__ import annotations

import importlib
import sys
import threading
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

REGISTRATIONS = {
    "transformers": "hf_transfer.models.registration:register hf_transfer.multi_model.registration:register",
    "peft": "hf_transfer.tuners.registration:register_tuners",
}
"""Package -> what to call, one "module:function" or several with spaces between, once it is imported."""


class RegistrationWarning(ImportWarning, UserWarning):
    """A package is there, but what we have for it could not be registered."""


class Registrar(MetaPathFinder):
    """Watches imports, without finding anything itself, until everything is registered."""

    def __init__(self):
        self.pending = dict(REGISTRATIONS)
        self.imports = threading.local()  # how many watched modules this thread is in the middle of importing

    def watches(self, name: str) -> bool:
        """Whether a module of this name may not be half imported while something is registered."""
        return name.partition(".")[0] in ("hf_transfer", *REGISTRATIONS)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec that the other finders give; of a watched module, one that tells when its import has ended."""
        if not self.watches(name):
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                break
        else:
            return None
        if spec.loader is not None and hasattr(spec.loader, "exec_module"):
            self._tell_of_the_end(spec.loader)
        return spec

    def _tell_of_the_end(self, loader: Loader) -> None:
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            self.imports.depth = getattr(self.imports, "depth", 0) + 1
            try:
                execute(module)
            finally:
                self.imports.depth -= 1
            self.register()

        setattr(loader, "exec_module", exec_module)  # noqa: B010 - of this loader alone

    def register(self) -> None:
        """Register what belongs to the packages that are imported, unless this thread is in the middle of one."""
        if getattr(self.imports, "depth", 0):
            return
        for package in [name for name in REGISTRATIONS if name in self.pending and name in sys.modules]:
            for entry in (self.pending.pop(package, None) or "").split():
                call(entry, package)
        if not self.pending and self in sys.meta_path:
            sys.meta_path.remove(self)


def call(entry: str, package: str) -> None:
    """Call "module:function"; an import that fails is a warning that says what to do."""
    module, _, function = entry.partition(":")
    try:
        getattr(importlib.import_module(module), function)()
    except ImportError as error:
        warnings.warn(
            f"hf_transfer cannot register its part of {package} ({type(error).__name__}: {error}): Flowformer, "
            '"flow" attention or its tuners are unknown there. `hf-transfer doctor` says what to mend.',
            RegistrationWarning,
            stacklevel=2,
        )


def watch() -> None:
    """Called once by `hf_transfer/__init__.py`: register now for what is imported, and for the rest when it is."""
    registrar = Registrar()
    sys.meta_path.insert(0, registrar)
    registrar.register()
