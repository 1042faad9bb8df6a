"""Data sets of the hub in a watched folder: from the cache, or downloaded beside the loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from loopscope.inputs.datasets import Datasets
from loopscope.specs.texts.source import DatasetAsked, FoundDataset


@dataclass
class DatasetsBeside:
    """Answers at once; what is not in the cache is downloaded in a thread, one after the other.

    ``arrived`` is called in that thread when a download ended. A download that failed is said once
    and begun again when it is asked for the next time.
    """

    arrived: Callable[[], None]
    datasets: Datasets = field(default_factory=Datasets)
    _failed: dict[DatasetAsked, str] = field(default_factory=dict)
    _under_way: dict[DatasetAsked, threading.Thread] = field(default_factory=dict)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def find(self, asked: DatasetAsked) -> FoundDataset:
        """Return the files that are asked for; ValueError while they are not there."""
        found = self.datasets.cached(asked)
        if found is not None:
            return found
        message = self._failed.pop(asked, None)
        if message is not None:
            raise ValueError(message)
        thread = self._under_way.get(asked)
        if thread is None or not thread.is_alive():
            # A daemon: a download must not hold back the end of the process.
            thread = threading.Thread(target=self._fetch, args=(asked,), daemon=True)
            self._under_way[asked] = thread
            thread.start()
        raise ValueError(f"{asked.name} is being downloaded; this is read again once it is there")

    def _fetch(self, asked: DatasetAsked) -> None:
        try:
            with self._turn:
                self.datasets.find(asked)
        except ValueError as error:
            self._failed[asked] = str(error)
        except Exception as error:  # its words may hold a token
            self._failed[asked] = f"{asked.name} cannot be downloaded now ({type(error).__name__})"
        finally:
            self.arrived()
