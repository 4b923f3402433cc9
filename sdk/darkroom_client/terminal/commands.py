"""The command line as a whole."""

import click
from click.shell_completion import get_completion_class

from darkroom_client.terminal import generate_commands, model_commands, query_commands
from darkroom_client.terminal.exit_codes import Exit, with_exit_code

VARIABLE = "_DARKROOM_CLIENT_COMPLETE"


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=(
        "Ends with 0; 1 when a job or a file failed, 2 for a wrong request, 3 when the server is "
        "not reached, 4 without permission, 5 when there is no such thing, 6 when the server is "
        "busy or broken, 124 when the time is up, 130 after Ctrl-C, which cancels."
    ),
)
@click.version_option(package_name="darkroom-client")
def cli() -> None:
    """Pictures from a Darkroom server on the local network."""


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@with_exit_code
def completion(shell: str) -> None:
    """Print what makes SHELL complete this command: eval "$(darkroom-client completion bash)"."""
    kind = get_completion_class(shell)
    if kind is None:
        raise click.exceptions.Exit(Exit.FAILED)
    click.echo(kind(cli, {}, "darkroom-client", VARIABLE).source())


@cli.command()
@click.option("--url", help="Of the server; default is DARKROOM_URL, or who was paired.")
@click.option("--port", type=click.IntRange(1, 65535), help="Speak HTTP here, for this machine.")
@with_exit_code
def mcp(url: str | None, port: int | None) -> None:
    """Be the tools of an assistant (MCP), over standard input and output or HTTP at /mcp."""
    try:
        from darkroom_client import assistant
    except ImportError as error:
        raise ImportError(f"{error}: pip install 'darkroom-client[mcp]'") from error
    assistant.run(url, port)


for command in (
    generate_commands.txt2img,
    generate_commands.img2img,
    generate_commands.inpaint,
    generate_commands.edit,
    generate_commands.upscale,
    generate_commands.batch,
    query_commands.jobs,
    query_commands.images,
    query_commands.image,
    query_commands.explain,
    query_commands.cancel,
    query_commands.models,
    query_commands.schedulers,
    query_commands.upscalers,
    model_commands.pull,
    model_commands.pulls,
    model_commands.delete_model,
    query_commands.pair,
    query_commands.discover,
):
    cli.add_command(command)
