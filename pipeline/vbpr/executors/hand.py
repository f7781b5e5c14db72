"""A worker, as Ray runs it: an actor in a process of its own on some machine."""

from typing import Any


def hand() -> type:
    """The class of workers. It is sent by value, for a machine may have another vbpr, or none: it says so itself."""

    class Hand:
        def begin(self, version: str, job: bytes, place: dict[str, Any]) -> dict[str, Any]:
            import importlib.metadata
            import pickle

            try:
                there = importlib.metadata.version("vbpr")
            except importlib.metadata.PackageNotFoundError:
                there = "none"
            if there != version:
                return {"unfit": f"it has vbpr {there}, and this run is of {version}"}
            from vbpr.base.errors import VbprError
            from vbpr.executors.job import Place

            try:
                self.work = pickle.loads(job).begin(Place(**place))
            except VbprError as error:
                return {"unfit": str(error)}
            return {"about": self.work.about}

        def agree(self, first: dict[str, Any]) -> str:
            from vbpr.base.errors import VbprError

            try:
                self.work.agree(first)
            except VbprError as error:
                return str(error)
            return ""

        def do(self, part: bytes) -> dict[str, Any]:
            import pickle

            from vbpr.base.errors import VbprError
            from vbpr.executors.job import Unfit

            try:
                return {"result": pickle.dumps(self.work(pickle.loads(part)), 5)}
            except Unfit as error:
                return {"unfit": str(error)}
            except VbprError as error:
                return {"refused": str(error)}

        def stop(self) -> None:
            self.work.stop()

    return Hand


__all__ = ["hand"]
