"""What networks are trained for: data, and what is measured on it."""
