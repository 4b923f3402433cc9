"""`python -m darkroom`, and the command `darkroom`.

Imports nothing by itself: processes that decode pictures import what their parent was started with.
"""


def main() -> None:
    """Run the command line."""
    import darkroom.fleet_cli  # noqa: F401 - adds its commands
    from darkroom.cli import main as run

    run()


if __name__ == "__main__":
    main()
