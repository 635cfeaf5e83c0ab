"""consignment-service: a second service, which lets only users of user-service in."""
