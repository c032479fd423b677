"""Where the YAML files are that every command composes."""

from pathlib import Path

from immunax.runtime.errors import UserError


def configuration_folder() -> Path:
    """The folder of YAML files: ``conf`` of the source checkout, or the copy inside the installed package.

    Raises:
      UserError: neither is there.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise UserError(f"no configuration beside {package}: install immunax again, or run it from a checkout")
