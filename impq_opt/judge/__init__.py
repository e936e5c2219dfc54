"""``verify`` and all that it needs: costs from the problem, a bound and an enumeration that no solver shares."""
