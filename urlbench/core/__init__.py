"""What everything else builds on: records, interfaces, names, seeds, identities, files that survive."""
