"""`mathnas automations`: the automations in `infra/automations/`, made or replaced on the Prefect server."""

import contextlib
import os
import string
from pathlib import Path
from typing import Any

import yaml

from nas_core.errors import ConfigError

WEBHOOK_BLOCK = "mathnas-webhook"
WEBHOOK_URL = "MATHNAS_WEBHOOK_URL"


def make_automations(folder: Path) -> list[str]:
    """Make every automation described in the folder, replacing one of the same name; returns their names.

    Those that call a webhook are made where MATHNAS_WEBHOOK_URL is set. The
    URL may hold a secret, so it goes into a Prefect block and nowhere else.

    Raises:
        ConfigError: if the folder holds no automation or one is wrong.
    """
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.yaml"))]
    if not texts:
        raise ConfigError(str(folder), "no automation", "a folder of YAML files such as infra/automations")
    wanted = [text for text in texts if "${WEBHOOK_BLOCK_ID}" not in text or os.environ.get(WEBHOOK_URL)]
    block_id = _webhook_block() if len(wanted) == len(texts) else ""
    return [_make(_parse(string.Template(text).safe_substitute(WEBHOOK_BLOCK_ID=block_id))) for text in wanted]


def _webhook_block() -> str:
    from prefect.blocks.webhook import Webhook

    block = Webhook(method="POST", url=os.environ[WEBHOOK_URL], allow_private_urls=True)
    return str(block.save(WEBHOOK_BLOCK, overwrite=True))


def _parse(text: str) -> dict[str, Any]:
    return dict(yaml.safe_load(text))


def _make(data: dict[str, Any]) -> str:
    from prefect.automations import Automation
    from pydantic import ValidationError

    try:
        automation = Automation.model_validate(data)
    except ValidationError as error:
        raise ConfigError(str(data.get("name")), str(error)[:300], "an automation as Prefect knows it") from None
    with contextlib.suppress(ValueError):  # none of that name
        Automation.read(name=automation.name).delete()  # type: ignore[union-attr]
    automation.create()
    return automation.name
