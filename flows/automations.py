"""`mathnas automations`: the automations in `infra/automations/`, made or replaced on the Prefect server."""

import os
import string
from pathlib import Path
from typing import TYPE_CHECKING, cast
from uuid import UUID

from flows.prefect_server import server_errors_in_words
from nas_core.base.errors import ClusterError, ConfigError
from nas_core.base.yaml_text import read_yaml

if TYPE_CHECKING:
    from prefect.automations import Automation

WEBHOOK_BLOCK = "mathnas-webhook"
WEBHOOK_URL = "MATHNAS_WEBHOOK_URL"
PLACEHOLDER = "WEBHOOK_BLOCK_ID"


def make_automations(folder: Path) -> list[str]:
    """Make every automation described in the folder, replacing one of the same name; returns their names.

    Those that call a webhook are made where MATHNAS_WEBHOOK_URL is set. The
    URL may hold a secret, so it goes into a Prefect block and nowhere else.

    Raises:
        ConfigError: if the folder holds no automation or one is wrong; then none is made.
        ClusterError: if there is no Prefect server, or it does not answer or refuses us.
    """
    texts = {path: _text_of(path) for path in sorted(folder.glob("*.yaml"))}
    if not texts:
        raise ConfigError(str(folder), "no automation", "a folder of YAML files such as infra/automations")
    for path, text in texts.items():
        parse_automation(text, str(path), UUID(int=0))
    with server_errors_in_words(_server(), "PREFECT_API_URL is its address."):
        url = os.environ.get(WEBHOOK_URL)
        block_id = _webhook_block(url) if url else UUID(int=0)
        wanted = {path: text for path, text in texts.items() if url or PLACEHOLDER not in text}
        return [_make(parse_automation(text, str(path), block_id)) for path, text in wanted.items()]


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigError(str(path), error, "a readable YAML file") from None


def parse_automation(text: str, source: str, block_id: UUID) -> "Automation":
    """The automation in YAML text, calling the webhook of that block; ``source`` is what errors call it.

    Raises:
        ConfigError: if it is no automation as Prefect knows it.
    """
    from prefect.automations import Automation
    from pydantic import ValidationError

    expected = "an automation as Prefect knows it"
    data = read_yaml(string.Template(text).safe_substitute({PLACEHOLDER: block_id}), source, expected)
    try:
        return Automation.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "top level"
        raise ConfigError(f"{source}: {where}", repr(first["input"])[:200], f"{expected} ({first['msg']})") from None


def _server() -> str:
    """The server's address as Prefect knows it, from the environment or a profile."""
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        raise ClusterError("PREFECT_API_URL", "nothing", "the address of the Prefect server with the deployments")
    return str(url)


def _webhook_block(url: str) -> UUID:
    from prefect.blocks.webhook import Webhook

    block = Webhook(method="POST", url=url, allow_private_urls=True)
    return UUID(str(block.save(WEBHOOK_BLOCK, overwrite=True)))


def _make(automation: "Automation") -> str:
    try:
        known = cast("Automation", type(automation).read(name=automation.name))
    except ValueError:  # none of that name
        automation.create()
    else:
        automation.id = known.id
        automation.update()
    return automation.name
