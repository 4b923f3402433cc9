"""`python -m darkroom`."""

from darkroom.cli import main

if __name__ == "__main__":  # processes that decode pictures import this under another name
    main()
