"""What every script has in common: command line, console, run folder, callbacks, devices."""
