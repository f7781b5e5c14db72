"""Code of one's own by its file and name, `my_models.py:TwoLayer`, and plug-ins that other packages install.

    own = load_own("my_models.py:TwoLayer"); own.value, own.digest

Such code is run where a person names it, on the command line or in Python. A name that a file records runs nothing: who
reads files asks `known_own`, which has what was named in this process already.
"""

import contextlib
import dataclasses
import functools
import inspect
import os
import sys
import traceback
import types
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from .errors import VbprError, first_line, near

MODEL_GROUP, BACKBONE_GROUP = "vbpr.models", "vbpr.backbones"  # groups of entry points
LONGEST = 2**20  # bytes of a file of code


@dataclasses.dataclass(frozen=True)
class Own:
    """A class or function that vbpr does not have.

    Attributes:
        reference: as it was named. name: its own. value: the class or function.
        file: where its code lies. origin: what to call that: the file's name, or the package and its version.
        digest: of the file's text, 32 hexadecimal digits.
    """

    reference: str
    name: str
    value: Any
    file: Path
    origin: str
    digest: str

    @property
    def title(self) -> str:
        return f"{self.name} of {self.origin}"

    def told(self) -> dict[str, str]:
        """What is recorded of it."""
        return {"name": self.name, "from": self.origin, "digest": self.digest}


LOADED: dict[str, Own] = {}  # of this process, by reference; plug-ins by group and name


def is_own(name: str) -> bool:
    """Whether a name is that of something in a file of one's own."""
    return name.endswith(".py") or ".py:" in name


def known_own(group: str, name: str) -> Own | None:
    """What was loaded in this process already under this name; runs nothing."""
    return LOADED.get(name if is_own(name) else f"{group} {name}")


def find_own(group: str, name: str) -> Own | None:
    """What a person names: something in a file, whose code is run, or what a package offers; None: neither."""
    return load_own(name) if is_own(name) else load_plugin(group, name)


def load_own(reference: str) -> Own:
    """Run a file of one's own, once a process, and find what is named in it. Its folder is searched for its imports,
    after all others.

    Raises:
        VbprError: no such file or name, or the file fails; the message has the line.
    """
    if reference in LOADED:
        return LOADED[reference]
    place, _, name = reference.rpartition(":")
    if not place.endswith(".py"):
        raise VbprError(f"{reference}: name what is in the file as well, as in {reference.rstrip(':')}:TwoLayer")
    module, digest = run_file(Path(place).absolute(), place)
    value = getattr(module, name, None)
    if not callable(value):
        has = [n for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__]
        raise VbprError(f"{place} has no class called {name!r}{near(name, has)}; it has {', '.join(has) or 'none'}")
    LOADED[reference] = Own(reference, name, value, Path(place).absolute(), Path(place).name, digest)
    return LOADED[reference]


@functools.cache
def run_file(path: Path, shown: str) -> tuple[types.ModuleType, str]:
    """The module of a file, and the digest of the text that was run."""
    try:
        with path.open("rb") as file:
            text = file.read(LONGEST + 1)
    except OSError as error:
        raise VbprError(f"{shown} cannot be read ({error.strerror}); give a Python file, as FILE.py:NAME") from error
    if len(text) > LONGEST:
        raise VbprError(f"{shown} is larger than a file of code; give a Python file, as FILE.py:NAME")
    digest = blake2b(text, digest_size=16).hexdigest()
    module = types.ModuleType(f"{path.stem}_{digest[:8]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses and pickles look for it
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        with naming_lines(path, shown):
            exec(compile(text, str(path), "exec"), vars(module))
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module, digest


def load_plugin(group: str, name: str) -> Own | None:
    """What an installed package offers under this name, by an entry point of this group; None: nothing.

    Raises:
        VbprError: it cannot be imported.
    """
    import importlib.metadata  # here, for it takes a tenth of the time in which `vbpr --help` answers

    for point in importlib.metadata.entry_points(group=group, name=name):
        origin = point.value if point.dist is None else f"{point.dist.name} {point.dist.version}"
        try:
            value = point.load()
            file = Path(inspect.getsourcefile(value) or inspect.getfile(value))
            digest = blake2b(file.read_bytes(), digest_size=16).hexdigest()
        except Exception as error:
            raise VbprError(
                f"{name} of {origin} cannot be imported ({type(error).__name__}: {first_line(error)}); mend that "
                "package, or take it away"
            ) from error
        LOADED[f"{group} {name}"] = Own(name, name, value, file, origin, digest)
        return LOADED[f"{group} {name}"]
    return None


def plugins(group: str) -> list[str]:
    """The names that installed packages offer in this group."""
    import importlib.metadata

    return sorted({point.name for point in importlib.metadata.entry_points(group=group)})


@contextlib.contextmanager
def naming_lines(path: Path, shown: str = "") -> Iterator[None]:
    """Have what fails in a file of one's own end in a sentence with its line. VBPR_TRACEBACK=1 leaves it as it is.

    What vbpr itself would say (memory that is out, a training that diverged, a stop) passes.

    Raises:
        VbprError: instead of any other error.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        passing = isinstance(error, MemoryError) or "out of memory" in str(error).lower()
        passing = passing or (isinstance(error, VbprError) and type(error) is not VbprError)
        if passing or os.environ.get("VBPR_TRACEBACK"):
            raise
        raise VbprError(fault_in(path, shown or path.name, error)) from error


def fault_in(path: Path, shown: str, error: BaseException) -> str:
    """Where in a file an error came up, and what it says."""
    words = f"{type(error).__name__}: {first_line(error)}" if type(error) is not VbprError else str(error)
    if isinstance(error, SyntaxError) and error.filename == str(path):
        words, where = f"{type(error).__name__}: {error.msg}", f"line {error.lineno}"
        code = (error.text or "").strip()
    else:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        if not frames:
            return f"{shown}: {words}"
        where, code = f"line {frames[-1].lineno}", (frames[-1].line or "").strip()
        where += f", in {frames[-1].name}" * (frames[-1].name != "<module>")
    return f"{shown}, {where}: {words}" + (f"  [{code:.80}]" if code else "")


__all__ = [
    "BACKBONE_GROUP",
    "MODEL_GROUP",
    "Own",
    "find_own",
    "is_own",
    "known_own",
    "load_own",
    "naming_lines",
    "plugins",
]
