"""Faults of real processes: whatever dies, breaks or fills up, the study ends as an unbroken one would."""
