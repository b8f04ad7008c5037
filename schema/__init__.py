"""The language: what can be asked, and which rows answer it."""
