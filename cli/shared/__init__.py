"""What several commands share: options, console, settings file, stopping, ranks."""
