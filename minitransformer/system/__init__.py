"""The disk and the user: errors, files that appear whole, flags, commands to paste."""
