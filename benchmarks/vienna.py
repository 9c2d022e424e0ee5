"""L14-RNA1's reward as a user's own function: ViennaRNA's binding energy of strings, in Python."""

import RNA

from didact.targets import L14RNA1

_HIDDEN = L14RNA1.facts.target


def score(strings: list[str]) -> list[float]:
    """How strongly each string binds to the hidden strand, in kcal/mol; 0 where it does not."""
    return [max(-RNA.duplexfold(_HIDDEN, string).energy, 0.0) for string in strings]
