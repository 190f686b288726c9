"""What was measured, and where it lies: evaluations, costs, the store, the lease on it. No torch."""
