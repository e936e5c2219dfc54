"""``python -m impq_opt`` is the command line."""

from impq_opt.cli import main

if __name__ == "__main__":  # processes that strategies run in import this module again
    main()
