"""`python -m shippy.user_service`."""

from .main import main

main()
