"""Draw a study: `python -m hpopt.plot my-study --out picture.png`, or `hpopt-plot`, which is the same."""

import argparse
import sys
from collections.abc import Sequence

from hpopt.errors import HpoptError
from hpopt.plot import KINDS, draw, from_folder, from_server
from hpopt.plot.scale import SCALES


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if (arguments.folder is None) == (arguments.study is None):
        parser.error("name the folder of a study's results, or a study on a server with --study")
    out = arguments.out or f"{arguments.kind}.png"
    try:
        if arguments.folder is not None:
            record = from_folder(arguments.folder)
        else:
            record = from_server(arguments.study, arguments.url, arguments.namespace)
        draw(record, arguments.kind, out, arguments.scale)
    except (HpoptError, ValueError, OSError) as error:
        print(f"hpopt-plot: {error}", file=sys.stderr)
        return 1
    print(out)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hpopt-plot", description="Draw a study from its results.")
    parser.add_argument("folder", nargs="?", help="the save_path of a study, where its results.json is")
    parser.add_argument("--study", help="instead of a folder: name of a study on a shared server")
    parser.add_argument("--url", help="that server, redis://host:port (default: HPOPT_URL)")
    parser.add_argument("--namespace", help='team on the server (default: HPOPT_NAMESPACE, or "default")')
    parser.add_argument("--kind", choices=KINDS, default="curves", help="what to draw (default: %(default)s)")
    parser.add_argument("--out", help="the picture: .png, .svg or .pdf (default: <kind>.png)")
    parser.add_argument("--scale", choices=SCALES, default="auto", help="axis of the scores (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
