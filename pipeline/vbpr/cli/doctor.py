"""`vbpr doctor`."""

from pathlib import Path
from typing import Annotated

import typer

from ..base.errors import VbprError


def doctor(
    folder: Annotated[Path, typer.Option(help="Folder whose disk is looked at")] = Path(),
) -> None:
    """What works on this machine, and a self-test of some seconds. Exits with 2 where something is wrong."""
    from ..studies.doctor import examine

    if not folder.is_dir():
        raise VbprError(f"--folder {folder} is no folder")
    wrong = []
    for finding in examine(folder):
        print(f"{finding.state:8}{finding.name}: {finding.words}", flush=True)
        wrong += [finding.name] if finding.state == "wrong" else []
    if wrong:
        raise VbprError(f"something is wrong with {', '.join(wrong)}; the lines above say what")


__all__ = ["doctor"]
