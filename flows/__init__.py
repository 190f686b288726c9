"""One Prefect flow per stage; ``study`` composes them, ``cli`` is the command line."""

from tasks import environment as environment  # first: Prefect reads its environment when it is imported
