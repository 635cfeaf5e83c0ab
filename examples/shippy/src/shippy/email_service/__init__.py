"""email-service: welcomes new users. The mail itself is mocked by a line in the log."""
