"""`python -m shippy.email_service`."""

from .main import main

main()
