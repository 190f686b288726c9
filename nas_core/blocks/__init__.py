"""The blocks networks are made of: ``kinds`` as data (no torch), ``assemble`` as torch modules."""
