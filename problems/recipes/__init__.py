"""How the problems of the gallery were made: ``python -m impq_opt.problems.recipes NAME -o FILE`` makes them again."""
