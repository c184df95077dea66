"""`python -m medharden`."""

from medharden.cli import main

if __name__ == "__main__":
    main()
