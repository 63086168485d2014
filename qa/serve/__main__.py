"""A page to ask a trained model on: its answer, its scores over the tokens, its attention. For this machine alone.

python -m qa.serve --model runs/demo-qa/model            then open the address that it prints; Ctrl-C ends it

It listens on 127.0.0.1, and refuses what a page of somebody else could make a browser send there.
"""

import argparse
import os
import signal

from minitransformer.system.errors import command_line
from minitransformer.system.flags import FlagParser, whole_number
from qa.answerer import PRECISIONS, SHIPPED, Answerer
from qa.serve.reader import Reader
from qa.serve.server import ADDRESS, LAST_PORT, PORT, Server


@command_line
def main() -> None:
    flags = parse_flags()
    with Server(Reader(Answerer(flags.model, flags.precision)), flags.port) as server:
        signal.signal(signal.SIGINT, end)
        print(f"ask it at http://{ADDRESS}:{server.server_port}/    (Ctrl-C ends it)", flush=True)
        server.serve_forever()


def end(*_: object) -> None:
    """Leave at once, without the shutdown of Python: that aborts where a thread is still inside torch for a request."""
    os.write(1, b"\nended\n")
    os._exit(0)


def parse_flags() -> argparse.Namespace:
    parser = FlagParser(prog="python -m qa.serve", description=__doc__)
    parser.add_argument("--model", metavar="DIR", default=SHIPPED, help=f"a trained model's folder or name ({SHIPPED})")
    parser.add_argument("--precision", default="auto", choices=PRECISIONS,
                        help="auto: 16 bits where the model's answers were found to stay the same")  # fmt: skip
    port = whole_number(at_least=0)
    parser.add_argument("--port", type=port, default=PORT, metavar="N", help=f"{PORT} unless told; 0: any free one")
    flags = parser.parse_args()
    if flags.port > LAST_PORT:
        parser.error(f"--port {flags.port}: the last one is {LAST_PORT}")
    return flags


if __name__ == "__main__":
    main()
