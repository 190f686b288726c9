"""The report's figures, a file for each subject; ``figures.py`` lists them."""
