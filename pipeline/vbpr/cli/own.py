"""`vbpr check`."""

from typing import Annotated

import typer

from ..base.errors import VbprError, counted
from .options import Weights


def check(
    what: Annotated[str, typer.Argument(help="FILE.py:NAME, a model or a backbone of one's own")],
    weights: Weights = None,
    random_weights: Annotated[bool, typer.Option("--random-weights", help="Of a backbone: untrained weights")] = False,
) -> None:
    """Contract tests of a model or backbone of one's own. On a small made catalogue; exits with 2 at a fault."""
    from ..studies.check import check as run

    kind, findings = run(what, weights, random_weights)
    if kind == "model" and (weights or random_weights):
        raise VbprError("--weights and --random-weights are for a backbone; leave them out")
    faults = total = 0
    for finding in findings:
        total += 1
        faults += finding.state == "fault"
        print(f"{finding.state:7}{finding.name}" + (f": {finding.words}" if finding.words else ""), flush=True)
    if faults:
        raise VbprError(f"{what} fails {counted(faults, 'check')} of {total}; the lines above say what to do")
    print(f"{what} is a {kind} as vbpr's own are: {total} checks")


__all__ = ["check"]
