"""Orders from a controller to a worker: which job, by which code; and what follows the last one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

STOP_GRACE_SECONDS = 10.0
"""A worker whose orders end, or that gets SIGTERM, has exited after this time."""
EXIT_OUT_OF_TIME = 76
"""A worker gave its job back between two shards: the next one would end after its time."""


@dataclass(frozen=True)
class Order:
    """A claimed job, with what its digest and its controller take the stage's code to be.

    An order of an older Loopscope names no code, and is refused.
    """

    job: int
    token: int
    stage: str = ""
    code_revision: int | None = None
    code: str = ""
    """``SourceCode.of_stage``: it enters no digest, and stands in the manifest as a record."""

    def to_line(self) -> bytes:
        """Return the order as a line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @staticmethod
    def from_line(line: str) -> Order:
        """Read an order; what another version wrote beside it is left out."""
        known = {n: v for n, v in json.loads(line).items() if n in Order.__dataclass_fields__}
        return Order(**known)

    def check(self, code_revision: int | None, code: str) -> None:
        """Raise CodeChanged if a worker that holds this code must not follow the order."""
        from loopscope.state.source_code import CodeChanged  # late: commands read the limits above

        if self.code_revision != code_revision:
            raise CodeChanged(
                f"the job is named by code revision {self.code_revision} of the stage "
                f"{self.stage or '(unnamed)'}, the files hold revision {code_revision}"
            )
        if self.code != code:
            raise CodeChanged(
                f"the source of the stage {self.stage} was {self.code[:12]}, it is {code[:12]}"
            )
