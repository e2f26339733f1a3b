"""The bundles in the box, for any number of channels; a configuration names them by their files' names.

`default` is the one that is meant where none is named. Made by `make bundles`; what each is and what it learnt from
stands in its metadata (`tidewarden inspect default`).
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from detector.errors import BundleError

DEFAULT = "default"


def in_the_box() -> list[str]:
    """Their names."""
    return sorted(path.stem for path in _folder().glob("*.onnx"))


def locate(bundle: str | Path) -> Path:
    """Where a bundle lies: one in the box by its name, any other by its path.

    Raises:
        BundleError: It is a word without a file of that name, here or in the box.
    """
    boxed = _folder() / f"{bundle}.onnx"
    if str(bundle) in in_the_box():
        return boxed
    path = Path(bundle)
    if path.name == str(bundle) and not path.suffix and not path.exists():
        expected = f"a path, or one in the box: {', '.join(in_the_box())}"
        raise BundleError(bundle, "no such bundle", expected=expected, got="neither")
    return path


def default_path() -> Path:
    """Where the bundle lies that is meant where none is named."""
    return locate(DEFAULT)


def _folder() -> Path:
    return Path(str(files(__name__)))
