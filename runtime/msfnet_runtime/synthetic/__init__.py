"""Ray-cast streets and rooms with exact depth."""
