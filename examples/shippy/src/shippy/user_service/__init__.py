"""user-service: stores users, signs them in, and says when there is a new one."""
