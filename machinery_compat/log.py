"""Where this package's log lines go."""

from __future__ import annotations

import logging

__all__ = ["logger", "set_logger"]

#: The parent of every logger of this package.
logger = logging.getLogger("machinery_compat")


class _Forward(logging.Handler):
    def __init__(self, target: logging.Logger) -> None:
        super().__init__()
        self.target = target

    def emit(self, record: logging.LogRecord) -> None:
        if self.target.isEnabledFor(record.levelno):
            self.target.handle(record)


def set_logger(target: logging.Logger | None) -> None:
    """Sends all log lines of this package to a logger of yours; mirrors Go's ``log.Set``.

    Args:
        target: your logger; None goes back to ``logging``'s usual ways.
    """
    for handler in [one for one in logger.handlers if isinstance(one, _Forward)]:
        logger.removeHandler(handler)
    logger.propagate = target is None
    if target is not None:
        logger.addHandler(_Forward(target))
