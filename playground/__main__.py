"""A trained model writes, or speaks, live: python -m playground outputs/<date>/<run>

Opens a page on this machine, for models of handwriting and of sound. The run folder, or a
checkpoint alone, is enough.
"""

import argparse
import webbrowser


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m playground",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", help="folder of a run, or a checkpoint")
    parser.add_argument(
        "--port", type=int, default=8000, help="0 for any free one (default: 8000)"
    )
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    args = parser.parse_args()

    from runs.errors import readable_errors

    with readable_errors():
        play(args)


def play(args: argparse.Namespace) -> None:
    """Serves the page until it is interrupted."""
    try:
        from aiohttp import web
    except ImportError:
        raise ImportError("the playground needs aiohttp: pip install -e '.[play]'") from None

    from playground.server import HOST, listen, make_app
    from playground.visitor import load_player

    with listen(args.port) as sock:
        app = make_app(load_player(args.run))
        address = f"http://{HOST}:{sock.getsockname()[1]}/"
        print(f"{address}  (Ctrl-C ends it)", flush=True)
        if not args.no_browser:
            webbrowser.open(address)
        web.run_app(app, sock=sock, print=None, shutdown_timeout=1)


if __name__ == "__main__":
    main()
