"""What commands print besides their answers: JSON, the command that usually follows, files that were passed over."""

import contextlib
import functools
import json
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..base.errors import VbprError, counted, some


def keep_apart(json_out: Path | None, files: Mapping[str, Any]) -> None:
    """Refuse a `--json` that would overwrite a file which one of these options names.

    Raises:
        VbprError: it would.
    """
    for name, value in files.items():
        for path in value if isinstance(value, list) else [value]:
            if json_out is not None and isinstance(path, Path) and path.absolute() == json_out.absolute():
                raise VbprError(f"--json {json_out} is the file of {name.upper()} as well; give it another name")


def tells_json(command: Callable[..., Any]) -> Callable[..., None]:
    """A command whose result `--json` writes. Where that is standard output, all else goes to standard error."""

    @functools.wraps(command)
    def run(*args: Any, json_out: Path | None = None, **options: Any) -> None:
        to_stdout = str(json_out) == "-"
        if to_stdout:
            from ..base.progress import console
        elif json_out is not None:
            from ..base.targets import check_target

            check_target(json_out, "JSON", "--json")
            keep_apart(json_out, options)
        with contextlib.redirect_stdout(console.file if to_stdout else sys.stdout):
            result = command(*args, json_out=json_out, **options)
        if to_stdout:
            print(json.dumps(result, indent=1))
        elif json_out is not None:
            from ..base.files import replace_text

            replace_text(json_out, json.dumps(result, indent=1) + "\n", "JSON")

    return run


def tell_others(others: Mapping[str, int]) -> None:
    """Print how many files were passed over among the images, by ending."""
    if others:
        kinds = sorted((-count, repr(ending)[1:-1]) for ending, count in others.items())
        first = some(f"{-count:,} {ending}" for count, ending in kinds)
        print(f"passed over {counted(sum(others.values()), 'file')} not named like images ({first})")


def tell_next(*words: str | Path) -> None:
    """Print the command that usually follows, to be pasted into a shell."""
    print("next:", shlex.join(map(str, ["vbpr", *words])))


def beside(files: list[Path], model: str, suffix: str) -> Path:
    """The default path of what is made from feature files: artifacts/inc.h5 -> artifacts/inc.vbpr.model.h5."""
    model = model.rpartition(":")[2]  # of FILE.py:NAME
    stem = files[0].with_suffix("") if files else Path("artifacts") / model
    return stem.with_name(f"{stem.name}{'' if not files or model == 'visual' else f'.{model}'}{suffix}")


__all__ = ["beside", "keep_apart", "tell_next", "tell_others", "tells_json"]
