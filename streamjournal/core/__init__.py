"""The words that every stage uses: entry, position, numbers, settings, clock, errors."""
