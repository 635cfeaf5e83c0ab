"""shippy: the shipping example of ketch."""
