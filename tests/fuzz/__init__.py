"""Everything that reads what others wrote, fed with what nobody would write. See tests/fuzz/targets.py."""
