"""`python -m didact.cli`: the command line where it is not installed."""

from ._main import main

if __name__ == "__main__":
    main()
