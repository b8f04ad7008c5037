"""Makes `python -m graphql_api` the same program as `forkpoint`."""

from graphql_api.cli import main

if __name__ == "__main__":  # processes of several workers import this module too
    main()
