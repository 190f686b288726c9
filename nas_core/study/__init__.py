"""One search: its configuration, what its store holds, what follows from it. No torch."""
