"""Where a command runs: on this machine, detached from the terminal or page that started it."""
