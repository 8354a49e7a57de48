"""Profiles for other programs: a selection as pprof, folded text or speedscope."""
