"""What :func:`solve` may believe of a claim: recomputing answer and bound, the status, why there is no answer."""
