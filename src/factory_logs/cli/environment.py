"""Read the settings from the environment variables `FACTORY_LOGS_*`, and warn about variables without effect."""

import difflib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from factory_logs.cli.device.options import OPTION_VARIABLES
from factory_logs.cli.output import CommandError, print_message

if TYPE_CHECKING:
    from factory_logs.settings import Settings

PREFIX = "FACTORY_LOGS_"


def variable_name(setting: str) -> str:
    return f"{PREFIX}{setting.upper()}"


def is_set(setting: str) -> bool:
    return variable_name(setting) in {key.upper() for key in os.environ}


def load_settings(**overrides: object) -> "Settings":
    """Return the settings from the environment. Overrides that are not None replace them. Raises CommandError."""
    from pydantic import ValidationError

    from factory_logs.settings import Settings

    warn_of_unknown_variables()
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        problems = "; ".join(
            f"{variable_name('_'.join(map(str, problem['loc'])))}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise CommandError(problems) from None
    if "data_dir" in settings.model_fields_set or not _is_root():
        return settings
    from factory_logs.embedded import default_data_dir

    return settings.model_copy(update={"data_dir": default_data_dir(settings.data_dir)})


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def warn_of_unknown_variables() -> None:
    """Warn about each variable that is neither a setting nor an option of a command, because a misspelt variable has no
    effect."""
    known = {name.removeprefix(PREFIX) for name in (*_settings(), *OPTION_VARIABLES)}
    for variable in sorted(os.environ):
        name = variable.upper().removeprefix(PREFIX)
        if variable.upper().startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"is {PREFIX}{near[0]} meant?" if near else "`factory-logs settings` lists all settings"
            print_message(f"warning: {variable} is not a setting and has no effect; {hint}")


def _settings() -> Iterator[str]:
    from factory_logs.settings import Settings

    return map(variable_name, Settings.model_fields)
