"""Downloads of a job: an error of one is a failure of the job, in our own words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from loopscope.inputs.errors import InputRefused, ResolutionPending
from loopscope.inputs.hub import hub_errors
from loopscope.state.failures import TerminalFailure, TransientFailure


@contextmanager
def downloading(repo: str, revision: str, refused_as: str) -> Iterator[None]:
    """Raise errors in the controller's terms: ``TerminalFailure(refused_as)`` if a human must act.

    Errors that may pass become a ``TransientFailure`` with reason ``HubUnreachable``.
    """
    try:
        with hub_errors(repo, revision, "source"):
            yield
    except InputRefused as error:
        raise TerminalFailure(refused_as, error.message) from None
    except ResolutionPending as error:
        raise TransientFailure("HubUnreachable", error.message) from None
    except Exception as error:  # whatever the hub client raises; its words may hold a token
        raise TransientFailure(
            "HubUnreachable",
            f"{repo} at {revision} cannot be downloaded now ({type(error).__name__})",
        ) from None
