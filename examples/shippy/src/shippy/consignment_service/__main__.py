"""`python -m shippy.consignment_service`."""

from .main import main

main()
