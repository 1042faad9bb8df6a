"""A server of llama.cpp on loopback, as a process of its own: ``python llama_server.py FILE``.

It prints its address and serves until its standard input ends.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Serve one GGUF file with one thread."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.port = 0
    params.n_ctx = 1024
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup = False
    server = xllamacpp.Server(params)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
