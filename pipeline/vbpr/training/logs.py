"""What a training tells a log of experiments: MLflow, Weights & Biases, or a hook in a file of one's own.

    with logging_to(hook_of("mlflow"), {"model": "visual"}) as log: log.finish(train(...))

A hook has three methods, all called in the process that trains:

    start(configuration)       options of the training by name: text, numbers, None
    epoch(epoch, figures)      `loss`, and `auc` of the validation items where it is known; closed forms have no epochs
    finish(figures, path)      final figures by name, and the path of the model file; both None where training failed

A log that fails is a warning and the end of that log, never of the training.
"""

import contextlib
import dataclasses
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from ..base.errors import VbprError, first_line, near
from ..base.own import is_own, load_own
from ..base.progress import console, listening
from ..evaluation.evaluate import evaluate
from .train import Training

Figures = dict[str, float]


class Hook(Protocol):
    """What `--log FILE.py:NAME` names makes such an object, without arguments."""

    def start(self, configuration: dict[str, Any]) -> None: ...
    def epoch(self, epoch: int, figures: Figures) -> None: ...
    def finish(self, figures: Figures | None, path: Path | None) -> None: ...


class MLflow:
    """A run of MLflow, in the store of the URI, else in the one that MLflow's own settings name."""

    def __init__(self, uri: str) -> None:
        self.mlflow, self.uri = imported("mlflow"), uri

    def start(self, configuration: dict[str, Any]) -> None:
        if self.uri:
            self.mlflow.set_tracking_uri(self.uri)
        self.mlflow.start_run()
        self.mlflow.log_params(configuration)

    def epoch(self, epoch: int, figures: Figures) -> None:
        self.mlflow.log_metrics(figures, step=epoch)

    def finish(self, figures: Figures | None, path: Path | None) -> None:
        if figures is not None:
            self.mlflow.log_metrics(figures)
            self.mlflow.set_tag("model_file", str(path))
        self.mlflow.end_run("FAILED" if figures is None else "FINISHED")


class Wandb:
    """A run of Weights & Biases; its own settings (WANDB_MODE, WANDB_PROJECT) say where to."""

    def __init__(self) -> None:
        self.wandb = imported("wandb")

    def start(self, configuration: dict[str, Any]) -> None:
        self.run = self.wandb.init(config=configuration)

    def epoch(self, epoch: int, figures: Figures) -> None:
        self.run.log({"epoch": epoch} | figures)

    def finish(self, figures: Figures | None, path: Path | None) -> None:
        if figures is not None:
            self.run.summary.update(figures | {"model_file": str(path)})
        self.run.finish(exit_code=int(figures is None))


def imported(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise VbprError(f"--log {package} needs a package that is not installed; pip install {package}") from error


def hook_of(name: str) -> Hook:
    """The hook that `--log` names.

    Raises:
        VbprError: no such log, file or class, or its package is not installed.
    """
    kind, _, uri = name.partition(":")
    if is_own(name):
        own = load_own(name)
        try:
            hook: Hook = own.value()
        except Exception as error:
            raise VbprError(f"--log {name} cannot be made ({type(error).__name__}: {first_line(error)})") from error
        lacking = [part for part in ("start", "epoch", "finish") if not callable(getattr(hook, part, None))]
        if lacking:
            raise VbprError(f"--log {name} has no method {lacking[0]}; a hook has start, epoch and finish")
        return hook
    if kind == "mlflow":
        return MLflow(uri)
    if name == "wandb":
        return Wandb()
    raise VbprError(f"--log {name}: no such log{near(kind, ['mlflow', 'wandb'])}; mlflow[:URI], wandb or FILE.py:NAME")


@dataclasses.dataclass
class Log:
    """A hook, until it fails. Of parts trained one after another, the second's figures are `part2.loss`, and so on."""

    hook: Hook | None
    part: int = 1
    last: int = 0
    ended: bool = False

    def tell(self, method: str, *arguments: Any) -> None:
        if self.hook is None:
            return
        try:
            getattr(self.hook, method)(*arguments)
        except Exception as error:
            self.hook = None
            words = f"{type(error).__name__}: {first_line(error)}"
            print(f"warning: the log failed and gets no more of this training ({words})", file=console.file)

    def epoch(self, epoch: int, figures: Figures) -> None:
        self.part += epoch <= self.last
        self.last = epoch
        prefix = f"part{self.part}." if self.part > 1 else ""
        self.tell("epoch", epoch, {prefix + name: float(value) for name, value in figures.items() if is_figure(value)})

    def finish(self, done: Training, device: str = "auto") -> None:
        """Tell the final figures, among them those of the validation items."""
        if self.hook is not None:
            self.tell("finish", final_figures(done, device), done.path)
            self.ended = True


def is_figure(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def final_figures(done: Training, device: str) -> Figures:
    """Seconds, sizes, and means over the validation items (`validation.auc`), all and cold, where there are some."""
    factors = done.factors
    figures: Figures = {"seconds": done.seconds, "users": len(factors.user_ids), "items": len(factors.item_ids)}
    figures["train_interactions"] = int(factors.train.nnz)
    if factors.validation.nnz:
        summary = evaluate(factors, "validation", device).summary()
        for part, prefix in (("all", "validation."), ("cold", "validation.cold.")):
            figures |= {prefix + name: value for name, value in summary[part].items() if is_figure(value)}
    return {name.replace("@", "_at_"): float(value) for name, value in figures.items()}  # MLflow takes no @


@contextlib.contextmanager
def logging_to(hook: Hook | None, configuration: dict[str, Any]) -> Iterator[Log]:
    """Have a training under this context told to a hook; None: to none."""
    log = Log(hook)
    if hook is None:
        yield log
        return
    log.tell("start", configuration)
    try:
        with listening(log.epoch):
            yield log
    finally:
        if not log.ended:
            log.tell("finish", None, None)


__all__ = ["Hook", "hook_of", "logging_to"]
