"""The `ketch` command: one subcommand a file."""
