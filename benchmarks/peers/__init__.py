"""Requests per second of Forkpoint, PostGraphile and a bare limit, on the same data and the same machine."""
