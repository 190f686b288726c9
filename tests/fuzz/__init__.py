"""Input from outside, mutated: configurations, spaces, problems, limits, stores."""
