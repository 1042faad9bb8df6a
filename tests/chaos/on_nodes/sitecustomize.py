"""Lets actors of Ray get their workers from the fork server; nodes have this folder on their path.

An actor starts its worker with ``subprocess.Popen``. A worker that first imports torch takes most
of the time of a kill, and has nothing to lose meanwhile.
"""

from __future__ import annotations

import os
import subprocess
import sys

if "CHAOS_FORK_SERVER" in os.environ and any("default_worker" in one for one in sys.orig_argv):
    from tests.chaos.fork_server import Popen

    subprocess.Popen = Popen  # type: ignore[misc]
