"""What every test stands on."""

from __future__ import annotations

import signal

# A shell starts a background job with SIGINT ignored, and so would be every program that a test starts and ends by Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
