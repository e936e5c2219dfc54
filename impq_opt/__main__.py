"""``python -m impq_opt`` is the command line."""

from impq_opt.cli import main

main()
