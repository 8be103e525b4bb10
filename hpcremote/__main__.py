"""``python -m hpcremote``: the command line."""

from hpcremote.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
