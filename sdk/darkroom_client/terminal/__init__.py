"""`darkroom-client`, the command. Needs the extras `[cli]`; nothing else here imports this."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ImportError as error:
        sys.exit(f"darkroom-client needs {error.name}: pip install 'darkroom-client[cli]'")
    from darkroom_client.terminal.commands import cli

    cli(prog_name="darkroom-client")
