"""Pairs of a better and a worse response to the same instruction."""
