"""Programs that hunt for lies: hostile questions, files, forgeries, claims and numbers, each held against the truth.

``questions`` declares a small problem in plain Python numbers and finds its truth by looking at every assignment with
fractions, from the documented formulas alone; ``draws`` makes such questions at random. The other modules attack one
side each, one seed an attack: ``instances`` solves and verifies, ``forgeries`` changes what a saved answer says,
``claims`` runs strategies that lie, ``mutations`` damages files, ``numbers`` sums extreme arrays.
``tests/judge/test_attack.py`` runs a few of each, ``benchmarks/attack.py`` as many as there is time for.
"""

from attacks.core import ATTACKS, Attack, Fault, TooLong, limited

__all__ = ["ATTACKS", "Attack", "Fault", "TooLong", "limited"]
