"""`python -m shippy.user_cli`."""

from .main import main

main()
