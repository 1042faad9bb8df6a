"""``python -m loopscope``."""

import sys

if not sys.flags.safe_path:  # Python put the working folder first; nothing there is our code
    del sys.path[0]

from loopscope.start import main

main()
