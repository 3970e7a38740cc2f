"""Where a running engine tells of itself besides log, status file and service manager: metrics endpoint and webhook.

Both are off unless the configuration turns them on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from tradebot.config.model import Config, MetricsConfig
from tradebot.core.errors import ConfigError, ExitCode
from tradebot.core.runtime import Runtime
from tradebot.output.log import Log
from tradebot.telemetry.alerts import Alerts, exit_alert, orphan_alert
from tradebot.telemetry.status_file import Status
from tradebot.telemetry.webhook import Post, Webhook

if TYPE_CHECKING:
    from tradebot.telemetry.prometheus import MetricsServer


class Exporters:
    """Made before the run begins, so that a port in use ends it with 12. Main thread."""

    def __init__(
        self,
        config: Config,
        run_id: str,
        runtime: Runtime,
        log: Log,
        post: Post | None = None,
        webhook_url: str | None = None,
    ) -> None:
        """`post`: how the webhook is reached, None over HTTP. `webhook_url` None: that of the configuration.

        Raises ConfigError: port, package or URL unusable.
        """
        notify, metrics = config.notify, config.metrics
        self._alerts = Alerts(notify.link_lost_s, notify.refusals_per_minute)
        self._latest: Status | None = None
        self._ended = False
        self._server: MetricsServer | None = None
        self._webhook: Webhook | None = None
        if metrics.port:
            self._server = self._serve(metrics, runtime, log)
        webhook_url = webhook_url or notify.webhook_url
        if webhook_url is not None:
            try:
                self._webhook = Webhook(webhook_url, run_id, runtime, log, post)
            except ConfigError:
                self.close()
                raise

    @classmethod
    def of_refused(
        cls, config: Config, runtime: Runtime, log: Log, post: Post | None = None, webhook_url: str | None = None
    ) -> Exporters:
        """For a run that could not begin: only the webhook, for the alert about it. Raises ConfigError: invalid URL."""
        return cls(replace(config, metrics=MetricsConfig()), "", runtime, log, post, webhook_url)

    def look(self, status: Status) -> None:
        """For the publisher: the result of each look at the engine. Never blocks."""
        self._latest = status
        self._ended = status.state == "ended"
        if self._webhook is not None:
            for alert in self._alerts.look(status):
                self._webhook.send(alert)

    def failed(self, code: ExitCode, cause: str) -> None:
        """Report that the run could not begin or ended with an exception, unless its end was reported. Never blocks."""
        if self._webhook is not None and not self._ended:
            self._ended = True
            self._webhook.send(exit_alert(int(code), cause))

    def orphaned(self, file: str, reason: str) -> None:
        """The start has set a spill file aside. Never blocks."""
        if self._webhook is not None:
            self._webhook.send(orphan_alert(file, reason))

    def _serve(self, metrics: MetricsConfig, runtime: Runtime, log: Log) -> MetricsServer:
        try:
            from tradebot.telemetry.prometheus import MetricsServer
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"metrics.port is set, but the package {error.name} is missing: pip install 'tradebot[metrics]', or"
                " metrics.port = 0"
            ) from error
        return MetricsServer(metrics, lambda: self._latest, runtime, log)

    def close(self) -> None:
        """Send what is left and stop serving. Blocks for three seconds at most, none without outlets; idempotent."""
        if self._webhook is not None:
            self._webhook.close()
        if self._server is not None:
            self._server.close()
